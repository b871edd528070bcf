"""What pyproject.toml can't say: all packages below pipeline/; configs/ and data/ in it too, left where they are."""

from setuptools import find_packages, setup

SHIPPED = {"pipeline.shipped.configs": "configs", "pipeline.shipped.data": "data"}

setup(packages=[*find_packages(include=["pipeline*"]), *SHIPPED], package_dir=SHIPPED)
