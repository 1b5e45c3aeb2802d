"""What a training can be told by name; light, because settings are made of it."""

from __future__ import annotations

from typing import Literal, get_args

#: A family of models that becomes a bundle.
Family = Literal["linear", "mlp", "tcn", "state_space"]
FAMILIES: tuple[Family, ...] = get_args(Family)
#: Families that read the newest bars one by one, beside the features of the row.
WINDOWED: tuple[Family, ...] = ("tcn", "state_space")
#: How hyper-parameters are searched for.
SearchMethod = Literal["random", "halving"]
#: Whether the networks of a family are trained one by one or as one program.
Layout = Literal["auto", "loop", "vectorised"]
#: Arithmetic of a network while it is trained.
Precision = Literal["float32", "bfloat16"]
#: Where the training part of a fold begins: at the first row, or as far back as the oldest fold's.
FoldWindow = Literal["expanding", "rolling"]
