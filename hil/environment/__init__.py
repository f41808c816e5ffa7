"""Gymnasium environments on the rig contract. Needs the `gym` extra: `pip install 'hil[gym]'`.

Importing this registers `hil/CartPoleBalance-v0` and `hil/CartPoleSwingUp-v0`. Gymnasium 1.0
dropped its entry points, so an environment is made by naming this module before the id:
`gymnasium.make("hil.environment:hil/CartPoleBalance-v0")`.
"""

try:
    import gymnasium
except ImportError:
    raise ImportError(
        "hil.environment: Gymnasium is not installed; pip install 'hil[gym]'"
    ) from None

from hil.environment.configured import make
from hil.environment.episodes import AbstractEpisodes, Rebuilt, Waited
from hil.environment.rig_environment import EnvironmentSettings, RigEnvironment

__all__ = ["AbstractEpisodes", "EnvironmentSettings", "Rebuilt", "RigEnvironment", "Waited", "make"]

for _name in ("balance", "swing_up"):
    gymnasium.register(
        id=f"hil/CartPole{_name.title().replace('_', '')}-v0",
        entry_point="hil.environment:make",
        kwargs={"config": f"environment_{_name}.toml"},
    )
