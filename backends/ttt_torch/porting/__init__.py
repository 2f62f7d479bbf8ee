"""TTT layers in place of self-attention in Hugging Face models; needs the extra ``models``. Importing it lets the Auto classes load ported models."""

try:
    import rich as rich
    import transformers as transformers
except ImportError as error:
    raise ImportError(f"ttt_torch.porting: got no package {error.name!r}; expected it installed. Fix: pip install 'tttcore[models]'.") from error

from .architectures import ARCHITECTURES as ARCHITECTURES
from .architectures import Architecture as Architecture
from .attention import TTTAttention as TTTAttention
from .cache import TTTCacheLayer as TTTCacheLayer
from .distillation import Distillation as Distillation
from .distillation import distill as distill
from .plan import Change as Change
from .plan import Plan as Plan
from .ported import port as port
