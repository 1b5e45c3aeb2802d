"""How the asset graph shows the inference service who it is."""


def key_header(key: str) -> dict[str, str]:
    """The header with an API key; none for an empty one.

    Not as a bearer: an address may hold the name and password of a proxy, which go there.
    """
    return {"X-API-Key": key} if key else {}
