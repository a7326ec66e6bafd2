"""SageMaker on loopback: its API, its runtime, the logs of its endpoints, and a meter. Containers reverse text.

It runs in a thread of the test process and checks every signature. Source of the protocol: botocore 1.44, whose clients
a test drives against it. The states follow SageMaker: an endpoint can be neither changed nor deleted while it is being
created, and what runs or is being deleted costs.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.provider_service import ProviderService
from tests.servers import answer_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    Fields = dict[str, Any]

REGION, ACCOUNT = "eu-west-1", "123456789012"
KEY, SECRET = "AKIAFAKEKEYOFTHETESTS", "secret/key+of/the+tests"
CREATING, IN_SERVICE, DELETING, FAILED = "Creating", "InService", "Deleting", "Failed"
_SIGNATURE = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(\S+?)/(\d+)/(\S+?)/(\S+?)/aws4_request, ?SignedHeaders=(\S+?), ?"
)
_COMPONENT = "X-Amzn-SageMaker-Inference-Component"


@dataclass(slots=True)
class FakeEndpoint:
    """An endpoint. `billed_from` and `gone_at`: on the monotonic clock."""

    name: str
    config: str
    tags: dict[str, str]
    status: str = CREATING
    reason: str | None = None
    changes_at: float = 0.0
    billed_from: float = field(default_factory=time.monotonic)
    gone_at: float | None = None
    instances: int = 1
    asked: list[str] = field(default_factory=list)
    probes: int = 0

    @property
    def billed(self) -> float:
        """Seconds that cost money so far."""
        return (self.gone_at or time.monotonic()) - self.billed_from


@dataclass(slots=True)
class FakeComponent:
    """An inference component. `changes_at`: when its copies are what was asked for."""

    name: str
    endpoint: str
    wanted: int = 0
    copies: int = 0
    status: str = IN_SERVICE
    reason: str | None = None
    changes_at: float = 0.0


class Refused(Exception):
    """A call that is refused, with AWS's name for the failure."""

    def __init__(self, code: str, said: str, status: int = 400, **more: object) -> None:
        super().__init__(said)
        self.code, self.said, self.status, self.more = code, said, status, more


class SageMakerService(ProviderService):
    """The service as a test sees it. Its attributes may be set from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoints: list[FakeEndpoint] = []  # also those that are deleted
        self.components: dict[str, FakeComponent] = {}
        self.configs: dict[str, Fields] = {}
        self.creating = self.deleting = 0.02  # seconds
        self.fails: str | None = None  # the reason for which new endpoints fail
        self.refuses_creation: Refused | None = None
        self.lose_answers = 0  # so many creations take effect, but their answer is lost
        self.throttle = 0  # so many calls are answered that there are too many
        self.denied: set[str] = set()  # permissions that the credentials lack
        self.expired = False  # the credentials are
        self.container_fails: tuple[int, str] | None = None  # what every container fails with
        self.container_says: object = None  # what every container answers instead
        self.runtime_fails: Refused | None = None  # what every invocation is refused with
        self.dies_after: int | None = None  # so many requests to an endpoint
        self.log_begun = int(time.time() * 1000)
        self.log = ["loading the model", "the model is ready"]
        self.signed_as = set[str]()  # services
        self._lock = threading.RLock()
        self.add_config("labeller")

    # -- what a test does ----------------------------------------------------------------------------------------------

    def add_config(self, name: str, *, components: bool = False, least: int = 0, **more: object) -> None:
        scaling = {"ManagedInstanceScaling": {"Status": "ENABLED", "MinInstanceCount": least, "MaxInstanceCount": 2}}
        kind: Fields = scaling if components else {"ModelName": f"{name}-model"}
        variant = {"VariantName": "AllTraffic", "InitialInstanceCount": 1, "InstanceType": "ml.g4dn.xlarge", **kind}
        self.configs[name] = {"ProductionVariants": [variant], **more}

    def add(self, name: str, config: str | None = None, **tags: str) -> FakeEndpoint:
        """Add an endpoint of somebody else, which is in service."""
        if (config or name) not in self.configs:
            self.add_config(config or name)
        endpoint = FakeEndpoint(name, config or name, tags, IN_SERVICE)
        self.endpoints.append(endpoint)
        return endpoint

    def add_component(self, name: str, endpoint: str, copies: int = 0) -> FakeComponent:
        component = FakeComponent(name, endpoint, copies, copies)
        self.components[name] = component
        return component

    def alive(self) -> list[FakeEndpoint]:
        with self._lock:
            self._tick()
            return [endpoint for endpoint in self.endpoints if endpoint.gone_at is None]

    def end(self, endpoint: FakeEndpoint) -> None:
        """Delete an endpoint at once, as if somebody had done it earlier."""
        endpoint.gone_at = time.monotonic()

    def __getitem__(self, name: str) -> FakeEndpoint:
        return next(endpoint for endpoint in self.alive() if endpoint.name == name)

    # -- time ----------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = time.monotonic()
        for endpoint in self.endpoints:
            if endpoint.status == CREATING and now >= endpoint.changes_at:
                endpoint.status, endpoint.reason = (IN_SERVICE, None) if self.fails is None else (FAILED, self.fails)
            elif endpoint.status == DELETING and endpoint.gone_at is None and now >= endpoint.changes_at:
                endpoint.gone_at = now
        for component in self.components.values():
            if component.copies != component.wanted and now >= component.changes_at:
                component.copies, component.status = component.wanted, IN_SERVICE
        for endpoint in self.endpoints:
            inside = [component for component in self.components.values() if component.endpoint == endpoint.name]
            settled = all(now >= component.changes_at + self.deleting for component in inside)
            if inside and any(component.wanted for component in inside):
                endpoint.instances = max(endpoint.instances, 1)
            elif inside and settled:
                endpoint.instances = 0

    # -- the API -------------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> FakeEndpoint:
        found = next((one for one in self.endpoints if one.name == name and one.gone_at is None), None)
        if found is None:
            raise Refused("ValidationException", f'Could not find endpoint "{_arn("endpoint", name)}".')
        return found

    def _create_endpoint(self, asked: Fields) -> Fields:
        name, config = asked["EndpointName"], asked["EndpointConfigName"]
        if asked.get("Tags"):
            self._permit("sagemaker:AddTags", _arn("endpoint", name))
        if self.refuses_creation is not None:
            raise self.refuses_creation
        if config not in self.configs:
            raise _no_config(config)
        if any(one.name == name and one.gone_at is None for one in self.endpoints):
            raise Refused("ValidationException", f'Cannot create already existing endpoint "{_arn("endpoint", name)}".')
        tags = {tag["Key"]: tag["Value"] for tag in asked.get("Tags", [])}
        self.endpoints.append(FakeEndpoint(name, config, tags, changes_at=time.monotonic() + self.creating))
        return {"EndpointArn": _arn("endpoint", name)}

    def _describe_endpoint(self, asked: Fields) -> Fields:
        found = self._find(asked["EndpointName"])
        config = self.configs.get(found.config, {})
        variants = [
            {key: value for key, value in variant.items() if key in {"VariantName", "ManagedInstanceScaling"}}
            | {"CurrentInstanceCount": found.instances, "DesiredInstanceCount": found.instances}
            for variant in config.get("ProductionVariants", [])
        ]
        return {
            "EndpointName": found.name,
            "EndpointArn": _arn("endpoint", found.name),
            "EndpointConfigName": found.config,
            "EndpointStatus": found.status,
            "CreationTime": 1.7e9,
            "LastModifiedTime": 1.7e9,
            **({"FailureReason": found.reason} if found.reason else {}),
            **({} if found.status == CREATING else {"ProductionVariants": variants}),
            **({"AsyncInferenceConfig": config["AsyncInferenceConfig"]} if "AsyncInferenceConfig" in config else {}),
        }

    def _delete_endpoint(self, asked: Fields) -> Fields:
        found = self._find(asked["EndpointName"])
        if found.status in {CREATING, "Updating", "SystemUpdating"}:
            arn = _arn("endpoint", found.name)
            raise Refused("ValidationException", f'Cannot update in-progress endpoint "{arn}".')
        if any(component.endpoint == found.name for component in self.components.values()):
            raise Refused("ValidationException", "Cannot delete an endpoint with inference components.")
        found.status, found.changes_at = DELETING, time.monotonic() + self.deleting
        return {}

    def _list_endpoints(self, asked: Fields) -> Fields:
        alive = [one for one in self.endpoints if one.gone_at is None]
        begin = int(asked.get("NextToken") or 0)
        end = begin + asked.get("MaxResults", 10)
        times = {"CreationTime": 1.7e9, "LastModifiedTime": 1.7e9}
        page = [
            {"EndpointName": one.name, "EndpointArn": _arn("endpoint", one.name), "EndpointStatus": one.status} | times
            for one in alive[begin:end]
        ]
        return {"Endpoints": page, **({"NextToken": str(end)} if end < len(alive) else {})}

    def _describe_endpoint_config(self, asked: Fields) -> Fields:
        name = asked["EndpointConfigName"]
        if name not in self.configs:
            raise _no_config(name)
        about = {"EndpointConfigName": name, "EndpointConfigArn": _arn("endpoint-config", name), "CreationTime": 1.7e9}
        return about | self.configs[name]

    def _list_tags(self, asked: Fields) -> Fields:
        found = self._find(asked["ResourceArn"].rpartition("/")[2])
        return {"Tags": [{"Key": key, "Value": value} for key, value in found.tags.items()]}

    def _component(self, asked: Fields) -> FakeComponent:
        name = asked["InferenceComponentName"]
        if name not in self.components:
            said = f'Could not find inference component "{_arn("inference-component", name)}".'
            raise Refused("ValidationException", said)
        return self.components[name]

    def _describe_inference_component(self, asked: Fields) -> Fields:
        found = self._component(asked)
        return {
            "InferenceComponentName": found.name,
            "InferenceComponentArn": _arn("inference-component", found.name),
            "EndpointName": found.endpoint,
            "EndpointArn": _arn("endpoint", found.endpoint),
            "VariantName": "AllTraffic",
            "InferenceComponentStatus": found.status,
            "RuntimeConfig": {"DesiredCopyCount": found.wanted, "CurrentCopyCount": found.copies},
            "CreationTime": 1.7e9,
            "LastModifiedTime": 1.7e9,
            **({"FailureReason": found.reason} if found.reason else {}),
        }

    def _list_inference_components(self, asked: Fields) -> Fields:
        found = [one for one in self.components.values() if one.endpoint == asked["EndpointNameEquals"]]
        about = {"VariantName": "AllTraffic", "CreationTime": 1.7e9, "LastModifiedTime": 1.7e9}
        return {
            "InferenceComponents": [
                {
                    "InferenceComponentName": one.name,
                    "InferenceComponentArn": _arn("inference-component", one.name),
                    "EndpointName": one.endpoint,
                    "EndpointArn": _arn("endpoint", one.endpoint),
                }
                | about
                for one in found
            ]
        }

    def _update_inference_component_runtime_config(self, asked: Fields) -> Fields:
        found = self._component(asked)
        if found.status != IN_SERVICE:
            arn = _arn("inference-component", found.name)
            raise Refused("ValidationException", f'Cannot update in-progress inference component "{arn}".')
        found.wanted = asked["DesiredRuntimeConfig"]["CopyCount"]
        if found.wanted != found.copies:
            found.status, found.changes_at = "Updating", time.monotonic() + self.creating
        return {"InferenceComponentArn": _arn("inference-component", found.name)}

    def _filter_log_events(self, asked: Fields) -> Fields:
        name = asked["logGroupName"].rpartition("/")[2]
        if not any(one.name == name for one in self.endpoints):
            raise Refused("ResourceNotFoundException", "The specified log group does not exist.")
        begin = int(asked.get("nextToken") or 0)
        events = [
            {"logStreamName": "AllTraffic/i-0", "timestamp": written, "message": line, "eventId": str(number)}
            for number, line in enumerate(self.log)
            if (written := self.log_begun + number) >= asked.get("startTime", 0)
        ]
        more = {"nextToken": str(begin + 1)} if begin + 1 < len(events) else {}
        return {"events": events[begin : begin + 1], "searchedLogStreams": [], **more}

    # -- admission -----------------------------------------------------------------------------------------------------

    def _permit(self, action: str, resource: str) -> None:
        if action in self.denied:
            user = f"arn:aws:iam::{ACCOUNT}:user/tester"
            why = f"because no identity-based policy allows the {action} action"
            said = f"User: {user} is not authorized to perform: {action} on resource: {resource} {why}"
            raise Refused("AccessDeniedException", said)

    def _check_signature(self, request: web.Request, content: bytes, service: str) -> None:
        if self.throttle:
            self.throttle -= 1
            raise Refused("ThrottlingException", "Rate exceeded")
        found = _SIGNATURE.match(request.headers.get("Authorization", ""))
        if found is None:
            raise Refused("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
        key, _, region, signed_as, names = found.groups()
        if self.expired:
            raise Refused("ExpiredTokenException", "The security token included in the request is expired", 403)
        if key != KEY:
            raise Refused("UnrecognizedClientException", "The security token included in the request is invalid.", 403)
        headers = {name: request.headers[name] for name in names.split(";") if name != "host"}
        signing = AWSRequest(request.method, str(request.url), headers=headers, data=content)
        signing.context["timestamp"] = request.headers["X-Amz-Date"]
        auth = SigV4Auth(Credentials(KEY, SECRET), signed_as, region)
        canonical = auth.canonical_request(signing)
        expected = auth.signature(auth.string_to_sign(signing, canonical), signing)
        if not request.headers["Authorization"].endswith(f"Signature={expected}") or (region, signed_as) != (
            REGION,
            service,
        ):
            said = f"The request signature we calculated does not match; the canonical string was {canonical} ({KEY})"
            raise Refused("InvalidSignatureException", said, 403)
        self.signed_as.add(service)

    async def _api(self, request: web.Request) -> web.StreamResponse:
        prefix, _, operation = request.headers.get("X-Amz-Target", "").partition(".")
        self.calls.append(operation)
        while self.hangs:
            await asyncio.sleep(0.01)
        content = await request.read()
        service = {"SageMaker": "sagemaker", "Logs_20140328": "logs"}[prefix]
        asked = orjson.loads(content)
        with self._lock:
            try:
                self._check_signature(request, content, service)
                self._permit(f"{service}:{operation}", _arn("endpoint", str(asked.get("EndpointName", "*"))))
                self._tick()
                answer = getattr(self, re.sub(r"(?<!^)([A-Z])", r"_\1", f"_{operation}").lower().replace("__", "_"))(
                    asked
                )
            except Refused as refused:
                said = {"__type": refused.code, "message": refused.said}
                return web.json_response(said, status=refused.status, content_type="application/x-amz-json-1.1")
        if operation == "CreateEndpoint" and self.lose_answers:
            self.lose_answers -= 1
            assert request.transport is not None
            request.transport.close()
        body = b"" if operation == "DeleteEndpoint" else orjson.dumps(answer)
        return web.Response(body=body, content_type="application/x-amz-json-1.1")

    # -- the runtime ---------------------------------------------------------------------------------------------------

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        while self.hangs:
            await asyncio.sleep(0.01)
        content = await request.read()
        try:
            with self._lock:
                self._check_signature(request, content, "sagemaker")
                self._permit("sagemaker:InvokeEndpoint", _arn("endpoint", name))
                self._tick()
                endpoint = self._serving(name, request.headers.get(_COMPONENT))
            answer = await self._asked(endpoint, content)
        except Refused as refused:
            said = {"Message": refused.said, **refused.more}
            headers = {"x-amzn-ErrorType": f"{refused.code}:http://internal.amazon.com/coral/com.amazon.coral/"}
            return web.json_response(said, status=refused.status, headers=headers)
        return web.json_response(answer, headers={"x-Amzn-Invoked-Production-Variant": "AllTraffic"})

    def _serving(self, name: str, component: str | None) -> FakeEndpoint:
        found = next((one for one in self.endpoints if one.name == name and one.gone_at is None), None)
        if found is None or found.status not in {IN_SERVICE, "Updating"}:
            raise Refused("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
        has_components = any(one.endpoint == name for one in self.components.values())
        if has_components and component is None:
            said = "Inference Component Name header is required for endpoints to which you plan to deploy components."
            raise Refused("ValidationError", said)
        if component is not None and not self.components[component].copies:
            raise Refused("ValidationError", "Inference Component has no capacity to process this request.")
        if self.runtime_fails is not None:
            raise self.runtime_fails
        return found

    async def _asked(self, endpoint: FakeEndpoint, content: bytes) -> object:
        said = orjson.loads(content)
        if said == {}:
            endpoint.probes += 1
            raise _from_container(400, '{"error": "there are no inputs"}')
        if self.container_fails is not None:
            raise _from_container(*self.container_fails)
        if self.container_says is not None:
            return self.container_says
        inputs = said["inputs"]
        texts = inputs if isinstance(inputs, list) else [inputs]
        endpoint.asked += texts
        while self.holds and endpoint.gone_at is None:
            await asyncio.sleep(0.01)
        if len(endpoint.asked) == self.dies_after:
            self.end(endpoint)
        if "poison" in texts:
            raise _from_container(422, '{"error": "poison is refused"}')
        answers = [{"label": answer_to(text)} for text in texts]
        return answers if isinstance(inputs, list) else answers[0]

    # -- serving -------------------------------------------------------------------------------------------------------

    def _application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/", self._api)
        app.router.add_post("/endpoints/{name}/invocations", self._invoke)
        return app

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead AWS's tools, and us, to this service."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }


def _arn(kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{name}"


def _no_config(name: str) -> Refused:
    return Refused("ValidationException", f'Could not find endpoint configuration "{_arn("endpoint-config", name)}".')


def _from_container(status: int, said: str) -> Refused:
    """Return what the runtime answers if the container fails. Its status is 0 if it does not answer."""
    kind = "client" if 400 <= status < 500 else "server"
    message = f'Received {kind} error ({status}) from primary with message "{said}". See https://{REGION}.console.aws'
    more = {"OriginalStatusCode": status, "OriginalMessage": said, "LogStreamArn": "arn:aws:logs:..."}
    return Refused("ModelError", message, 424, **more)


@contextmanager
def sagemaker_service() -> Iterator[SageMakerService]:
    """Run the service; it ends with the block."""
    service = SageMakerService()
    with service.running():
        yield service
