"""What pyproject.toml cannot say: a wheel carries the shipped configs as s1_jax/configs (s1_jax/config/shipped.py)."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["s1_jax*"]), "s1_jax.configs"],
    package_dir={"s1_jax.configs": "configs"},
)
