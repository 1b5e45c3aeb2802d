"""What ``feast apply`` registers: the catalog's views over the lake of these settings."""

from __future__ import annotations

from cryptoml_assets.features import views
from cryptoml_assets.settings import settings

crypto_symbol = views.crypto_symbol()
price_features = views.view("price_features", settings().lake_uri)
onchain_features = views.view("onchain_features", settings().lake_uri)
row_service, window_service = views.return_services(price_features, onchain_features)
