from __future__ import annotations

from pathlib import Path

import pytest

from cryptoml_assets.deployment.signing import signing_key
from cryptoml_assets.errors import ApprovalError
from cryptoml_serving.contract.approval import key_id, load_public_key


def test_the_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    private, public = tmp_path / "keys" / "a.key", tmp_path / "keys" / "a.pub"
    first = signing_key(private, public)
    again = signing_key(private, public)
    assert key_id(again.public_key()) == key_id(first.public_key())
    assert key_id(load_public_key(public)) == key_id(first.public_key())


def test_a_lost_public_half_is_written_again(tmp_path: Path) -> None:
    private, public = tmp_path / "a.key", tmp_path / "a.pub"
    key = signing_key(private, public)
    public.unlink()
    signing_key(private, public)
    assert key_id(load_public_key(public)) == key_id(key.public_key())


def test_a_public_key_alone_is_never_replaced(tmp_path: Path) -> None:
    private, public = tmp_path / "a.key", tmp_path / "a.pub"
    signing_key(private, public)
    private.unlink()
    before = public.read_bytes()
    with pytest.raises(ApprovalError, match="cannot be read"):
        signing_key(private, public)
    assert public.read_bytes() == before


def test_halves_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    signing_key(tmp_path / "a.key", tmp_path / "a.pub")
    signing_key(tmp_path / "b.key", tmp_path / "b.pub")
    with pytest.raises(ApprovalError, match="not the public half"):
        signing_key(tmp_path / "a.key", tmp_path / "b.pub")
