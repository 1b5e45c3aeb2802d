"""What the commands about deployments share: who decides, the sound history, records as JSON."""

from __future__ import annotations

import difflib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptoml_assets.deployment import history, signing
from cryptoml_assets.deployment.identity import identity
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.approval import ApprovalInvalidError, load_public_key
from cryptoml_serving.contract.bundle import load_bundle
from cryptoml_serving.contract.manifest import BundleError
from cryptoml_serving.contract.registry import BUNDLE_FOLDER, DIGEST_TAG

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from cryptoml_assets.deployment.history import Entry, Subject


def who_decides(configured: Settings, reason: str) -> str:
    """The identity a decision is recorded under.

    Raises:
        IdentityError: nobody can be named.
        ApprovalError: the reason is empty.
    """
    if not reason.strip():
        raise ApprovalError(
            "a decision needs a reason: --reason TEXT, in words that a person reads"
        )
    return identity(
        token=configured.identity_token,
        issuer=configured.oidc_issuer,
        audience=configured.oidc_audience,
    )


def private_key(configured: Settings) -> Ed25519PrivateKey:
    """The key that signs decisions.

    Raises:
        ApprovalError: it cannot be used.
    """
    return signing.signing_key(configured.private_key_path, configured.public_key_path)


def public_key(configured: Settings) -> Ed25519PublicKey:
    """The key that verifies decisions.

    Raises:
        ApprovalError: it cannot be read.
    """
    try:
        return load_public_key(configured.public_key_path)
    except ApprovalInvalidError as error:
        raise ApprovalError(str(error)) from error


def sound_entries(configured: Settings) -> list[Entry]:
    """All decisions, verified, oldest first; none where nothing was ever decided.

    Raises:
        ApprovalError: the history is not sound, or cannot be verified.
    """
    lake = Lake(configured.lake_uri)
    if not lake.exists(history.TABLE):
        return []
    return history.read(lake, public_key(configured))


def registered_digest(client: Any, model_name: str, version: str) -> str:
    """Digest of the bundle that a version was registered with.

    Raises:
        ApprovalError: there is no such version, or it names no bundle.
    """
    known = {str(v.version): v for v in client.search_model_versions(f"name = '{model_name}'")}
    if version not in known:
        newest = sorted(known, key=int, reverse=True)
        near = difflib.get_close_matches(version, newest) or newest[:5]
        raise ApprovalError(
            f"{model_name} has no version {version}; it has: {', '.join(near) or 'none'}"
        )
    digest = known[version].tags.get(DIGEST_TAG)
    if not digest:
        raise ApprovalError(f"version {version} of {model_name} names no bundle ({DIGEST_TAG})")
    return str(digest)


def check_can_serve(client: Any, subject: Subject, instead: str) -> None:
    """That a bundle is still there, is the one meant, loads, and reads what is computed now.

    Args:
        client: of the tracker.
        subject: the version.
        instead: what to do where it is not so.

    Raises:
        ApprovalError: it is not so; a decision for it would be signed and could not be followed.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds to import

    from cryptoml_assets.deployment.champion import incomparable  # noqa: PLC0415 - reads models
    from cryptoml_assets.features.catalog import FEATURES  # noqa: PLC0415 - only this asks

    version = subject.model_version
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetched = client.download_artifacts(subject.run_id, BUNDLE_FOLDER, folder)
            bundle = load_bundle(Path(fetched), expected_digest=subject.bundle_digest)
        except (MlflowException, OSError, BundleError) as error:
            raise ApprovalError(
                f"version {version} cannot serve: its bundle in run {subject.run_id} is gone or "
                f"altered ({error}); {instead}"
            ) from error
    if why := incomparable(bundle.manifest, [feature.name for feature in FEATURES]):
        raise ApprovalError(f"version {version} cannot serve: {why}; {instead}")


def told(entry: Entry) -> dict[str, Any]:
    """A decision as JSON: the record's own fields, its digest and the key that signed it."""
    record = entry.record.model_dump(mode="json")
    return {**record, "digest": entry.digest, "key_id": entry.signed.key_id}


def summary(entry: Entry) -> str:
    """A decision in one line."""
    record = entry.record
    share = f" for {record.percent:g} % of the requests" if record.role == "canary" else ""
    return (
        f"decision {record.sequence}: {record.action} version {record.model_version} as "
        f"{record.role}{share}, by {record.decided_by}, {record.decided_at:%Y-%m-%d %H:%M:%S} UTC: "
        f"{record.reason}"
    )
