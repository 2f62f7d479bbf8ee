"""Language models of TTT layers as Hugging Face classes; needs the extra ``models``. Importing it registers them with the Auto classes."""

try:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
except ImportError as error:
    raise ImportError("ttt_torch.models: got no package 'transformers'; expected it installed. Fix: pip install 'tttcore[models]'.") from error

from tttcore.language_model import LoadingReport as LoadingReport

from .cache import TTTCache as TTTCache
from .causal_lm import TTTForCausalLM as TTTForCausalLM
from .config import TTTConfig as TTTConfig
from .modeling import TTTModel as TTTModel

AutoConfig.register(TTTConfig.model_type, TTTConfig)
AutoModel.register(TTTConfig, TTTModel)
AutoModelForCausalLM.register(TTTConfig, TTTForCausalLM)
