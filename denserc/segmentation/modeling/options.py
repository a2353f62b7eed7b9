"""Named options of CAT-Seg."""

from enum import Enum


class DenseFeatures(Enum):
    """Length of the dense features that enter the aggregator; the cost volume normalizes them either way.

    DeCLIP's branch passes unit vectors to the appearance guidance, CAT-Seg itself passes them raw. The DenseRC paper
    does not specify it. It compares with DeCLIP's figures and replaces "only the visual encoder", so unit vectors are
    the default, and configs over OpenAI's CLIP set "raw".
    """

    UNIT = "unit"
    RAW = "raw"


class ClassAttentionKind(Enum):
    """Attention over classes."""

    LINEAR = "linear"  # elu + 1; every published model
    FULL = "full"  # softmax


class IgnoredPixels(Enum):
    """Pixels without a label in the training loss."""

    NEGATIVE = "negative"  # CAT-Seg: negatives of every class, padding included
    EXCLUDED = "excluded"  # not counted


class WholePicture(Enum):
    """A picture without sliding windows."""

    EXACT = "exact"  # squashed to the network input as it is
    PADDED = "padded"  # CAT-Seg: padded to a multiple of 32 before, and the padding stays in the result


class Output(Enum):
    """Content of "sem_seg"."""

    SCORES = "scores"  # (T, H, W) probabilities per class
    LABELS = "labels"  # (H, W) index of the best class, with its probability; takes T times less memory


class Background(Enum):
    """The answer "none of the classes", label T where there are T of them."""

    NONE = "none"  # every pixel gets a class
    PROMPT = "prompt"  # one more class with the name "background"
    THRESHOLD = "threshold"  # where no class reaches a probability


class TowerTraining(Enum):
    """Weights of a CLIP tower's attention that learn; biases and everything else stay.

    CAT-Seg trains q and v of both towers. DeCLIP's branch does so in the image tower, but trains the whole joint
    projection of the text tower, whose storage has q, k and v in one tensor. The DenseRC paper does not specify it;
    the default is CAT-Seg's.
    """

    NONE = "none"
    QV = "qv"
    QKV = "qkv"
