"""The Helm chart: rendered, validated, and held against the code that it deploys."""
