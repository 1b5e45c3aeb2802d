"""The platform's own signing key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptoml_assets.errors import ApprovalError
from cryptoml_serving.contract import approval

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def signing_key(private_path: Path, public_path: Path) -> Ed25519PrivateKey:
    """The key that signs approvals, created with its public half where there is neither.

    Raises:
        ApprovalError: the key cannot be used, or the public one is not its other half.
    """
    try:
        if not private_path.exists() and not public_path.exists():
            approval.generate_keys(private_path, public_path)
        private = approval.load_private_key(private_path)
        if not public_path.exists():
            approval.write_public_key(private, public_path)
        public = approval.load_public_key(public_path)
    except approval.ApprovalInvalidError as error:
        raise ApprovalError(str(error)) from error
    if approval.key_id(public) != approval.key_id(private.public_key()):
        message = (
            f"{public_path} is not the public half of {private_path}: what it signs would never "
            "be trusted"
        )
        raise ApprovalError(message)
    return private
