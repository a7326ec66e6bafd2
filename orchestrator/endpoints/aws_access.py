"""Access to AWS: credentials, region and addresses as AWS's own tools find them, and signatures (SigV4) by botocore."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Self

from anyio import to_thread
from yarl import URL

from orchestrator.domain.errors import EndpointSilent, UsageError
from orchestrator.domain.secrets import Secrets
from orchestrator.endpoints.api_calls import keeps_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

EXTRA = "SageMaker needs the package botocore: pip install 'batch-inference-orchestrator[aws]'"
_NO_CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or sign in (`aws sso login`)"
_NO_REGION = "set region= of the endpoint, AWS_REGION, or the region of the profile"
_SERVICES = {"sagemaker": "sagemaker", "sagemaker-runtime": "sagemaker", "logs": "logs"}  # and how they are signed for


class AwsAccess:
    """Credentials for one region. What they are is in no text, and `repr` does not show them.

    `source`: where the credentials come from, in botocore's word: "env", "shared-credentials-file", "assume-role" ...
    """

    def __init__(self, region: str, credentials: Any, urls: Mapping[str, str]) -> None:
        self.region = region
        self.source = str(credentials.method)
        self._credentials = credentials
        self._urls = urls
        self._used = set[Any]()  # frozen credentials, which may be replaced while a run goes on

    @classmethod
    async def find(cls, region: str | None, profile: str | None) -> Self:
        """Find the credentials and the region. Raises `UsageError` if there are none."""
        return await to_thread.run_sync(cls._found, region, profile)

    @classmethod
    def _found(cls, region: str | None, profile: str | None) -> Self:
        try:
            from botocore import exceptions
            from botocore.session import Session
        except ImportError as error:
            raise UsageError(EXTRA) from error
        logging.getLogger("botocore.auth").setLevel(logging.INFO)  # its debug lines hold the session token
        session = Session(profile=profile)
        try:
            region = region or os.environ.get("AWS_REGION") or session.get_config_variable("region")
            credentials = session.get_credentials()
            urls = {service: _url(session, service, region) for service in _SERVICES} if region and credentials else {}
        except exceptions.BotoCoreError as error:
            raise UsageError(f"the settings of AWS cannot be used: {_line(error)}") from error
        if not region:
            raise UsageError(f"there is no region for SageMaker: {_NO_REGION}")
        if credentials is None:
            raise UsageError(f"there are no AWS credentials: {_NO_CREDENTIALS}")
        access = cls(region, credentials, urls)
        access._freeze()
        return access

    def url(self, service: str) -> str:
        """Return the base URL of a service in this region."""
        return self._urls[service]

    async def signed(
        self, service: str, method: str, url: str, content: bytes, headers: Mapping[str, str]
    ) -> dict[str, str]:
        """Return these headers with those that sign the request. The secret key itself is never sent."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(method, url, headers=dict(headers), data=content)
        frozen = await self._frozen()
        SigV4Auth(frozen, _SERVICES[service], self.region).add_auth(request)
        return dict(request.headers.items())

    def hidden_in(self, text: str) -> str:
        """Return the text without the credentials, which AWS may repeat when it refuses a signature."""
        values = [value for frozen in self._used for value in (frozen.access_key, frozen.secret_key, frozen.token)]
        return Secrets.of([value for value in values if value]).hidden_in(text)

    async def _frozen(self) -> Any:
        """Return the credentials as they are now; a thread fetches new ones before they expire."""
        refresh_needed = getattr(self._credentials, "refresh_needed", None)
        if refresh_needed is not None and refresh_needed():
            return await to_thread.run_sync(self._freeze)
        return self._freeze()

    def _freeze(self) -> Any:
        from botocore import exceptions

        try:
            frozen = self._credentials.get_frozen_credentials()
        except exceptions.HTTPClientError as error:
            raise EndpointSilent(f"AWS gives no credentials ({_line(error)}): run the same command again") from error
        except (exceptions.BotoCoreError, exceptions.ClientError) as error:
            raise UsageError(f"there are no AWS credentials ({_line(error)}): {_NO_CREDENTIALS}") from error
        self._used.add(frozen)
        return frozen


def _url(session: Any, service: str, region: str) -> str:
    """Return a service's base URL: the region's, or the one in the user's settings of AWS."""
    url: str = session.create_client(service, region_name=region).meta.endpoint_url
    if not keeps_secrets(URL(url)):
        raise UsageError(f"AWS_ENDPOINT_URL must be an https URL (http only on this machine), not {url!r}")
    return url.rstrip("/")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
