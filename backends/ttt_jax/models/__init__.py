"""Language models of TTT layers as Flax NNX modules, with the parameters of ``ttt_torch.models`` under the same names; needs the extra ``jax``."""

try:
    import safetensors as _  # noqa: F401 (is it there?)
except ImportError as error:
    raise ImportError("ttt_jax.models: got no package 'safetensors'; expected it installed. Fix: pip install 'tttcore[jax]'.") from error

from .causal_lm import CausalLMOutput as CausalLMOutput
from .causal_lm import TTTForCausalLM as TTTForCausalLM
from .modeling import ModelOutput as ModelOutput
from .modeling import TTTModel as TTTModel
