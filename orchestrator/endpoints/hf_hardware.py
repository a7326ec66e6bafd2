"""The hardware of Hugging Face endpoints, with prices and quotas, as the API lists it; reading the API's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

COMPUTE = ("accelerator", "instanceType", "instanceSize")


@dataclass(frozen=True, slots=True)
class Hardware:
    """One kind of instance, as the price list names it."""

    vendor: str
    region: str
    accelerator: str
    instance_type: str
    instance_size: str


def price_in(catalogue: object, wanted: Hardware) -> float | None:
    """Return dollars per hour for one replica, from the answer of GET /provider, or None if it is not listed."""
    for vendor, region, compute in _computes(catalogue):
        hardware = Hardware(vendor, region, *(text_at(compute, key) for key in COMPUTE))
        if hardware == wanted and (price := _amount_at(compute, "pricePerHour")) is not None:
            return price
    return None


@dataclass(frozen=True, slots=True)
class Offer:
    """Hardware on offer for one replica of an endpoint. A field is None if the catalogue does not state it.

    `architecture`: the vendor's name for the hardware. `gpu_memory_gb`: of all its accelerators together.
    `most`, `used`: the accelerators of this kind that the account may use, and those that it is using.
    """

    hardware: Hardware
    architecture: str
    accelerators: int
    memory_gb: float | None
    gpu_memory_gb: float | None
    price_per_hour: float | None
    status: str
    most: int | None
    used: int | None

    @property
    def available(self) -> bool:
        """Whether a replica is available now: the hardware is offered, and within the account's quota."""
        room = self.most is None or self.most - (self.used or 0) >= self.accelerators
        return self.status not in _NOT_OFFERED and room


_NOT_OFFERED = {"not_available", "deprecated"}  # hardware with a status that we do not know is shown


def offers_in(catalogue: object) -> tuple[Offer, ...]:
    """Return the hardware in the answer of GET /provider, by vendor and region, smaller instances first."""
    offers = [_offer(vendor, region, compute) for vendor, region, compute in _computes(catalogue)]
    return tuple(sorted(offers, key=_sort_key))


def _offer(vendor: str, region: str, compute: object) -> Offer:
    return Offer(
        hardware=Hardware(vendor, region, *(text_at(compute, key) for key in COMPUTE)),
        architecture=text_at(compute, "architecture"),
        accelerators=number_at(compute, "numAccelerators") or 0,
        memory_gb=_amount_at(compute, "memoryGb"),
        gpu_memory_gb=_amount_at(compute, "gpuMemoryGb"),
        price_per_hour=_amount_at(compute, "pricePerHour"),
        status=text_at(compute, "status"),
        most=number_at(compute, "quota", "maxAccelerators"),
        used=number_at(compute, "quota", "usedAccelerators"),
    )


def _sort_key(offer: Offer) -> tuple[str, str, str, str, int, float]:
    """Sort by number of accelerators and price within a type, because x16 sorts before x2 as text."""
    hardware = offer.hardware
    size = offer.accelerators, offer.price_per_hour or 0.0
    return hardware.vendor, hardware.region, hardware.accelerator, hardware.instance_type, *size


def _computes(catalogue: object) -> list[tuple[str, str, object]]:
    return [
        (text_at(vendor, "name"), text_at(region, "name"), compute)
        for vendor in _items(catalogue, "vendors")
        for region in _items(vendor, "regions")
        for compute in _items(region, "computes")
    ]


def _items(document: object, key: str) -> list[object]:
    items = value_at(document, key)
    return items if isinstance(items, list) else []


def value_at(document: object, *keys: str) -> object:
    """Return the value under these nested keys, or None if there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def text_at(document: object, *keys: str) -> str:
    """Return the text under these nested keys; "" if there is none."""
    value = value_at(document, *keys)
    return value if isinstance(value, str) else ""


def number_at(document: object, *keys: str) -> int | None:
    """Return the integer under these nested keys, or None if there is none."""
    value = value_at(document, *keys)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _amount_at(document: object, *keys: str) -> float | None:
    value = value_at(document, *keys)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
