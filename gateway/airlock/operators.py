"""The operators that a model may use: those of ONNX and of its `ai.onnx.ml` domain that are safe to serve.

A list of what is allowed, not of what is refused, so that an operator of a later ONNX is looked at first.
Left out, and why:

* `RandomNormal`, `RandomUniform`, `Multinomial`, `Bernoulli` and the like: one row gets several answers, so
  no certificate holds;
* `ImageDecoder`: a few bytes become a picture of any size;
* losses, and the domain `ai.onnx.preview.training`: they train;
* the domain `com.microsoft` and others of onnxruntime: optimised files; `EPContext` loads foreign code. Three
  pure functions are allowed, which scikit-learn's converter writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ONNX: Final = "", "ai.onnx"
"""The two names of ONNX's own domain."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "": _words("""
        Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
        BatchNormalization BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast
        CastLike CausalConvWithState Ceil Celu CenterCropPad Clip Col2Im Compress Concat ConcatFromSequence
        Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumProd CumSum DFT DeformConv
        DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand
        EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
        GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HammingWindow HannWindow
        HardSigmoid HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM
        LayerNormalization LeakyRelu Less LessOrEqual LinearAttention Log LogSoftmax Loop LpNormalization
        LpPool MatMul MatMulInteger Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization
        MelWeightMatrix Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Optional OptionalGetElement
        OptionalHasElement Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN
        Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
        ReduceProd ReduceSum ReduceSumSquare RegexFullMatch Relu Reshape Resize ReverseSequence RoiAlign
        RotaryEmbedding Round STFT Scan Scatter ScatterElements ScatterND Selu SequenceAt SequenceConstruct
        SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap Shape Shrink Sigmoid Sign Sin
        Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split SplitToSequence Sqrt Squeeze
        StringConcat StringNormalizer StringSplit Sub Sum SwiGLU Swish Tan Tanh TensorScatter TfIdfVectorizer
        ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor
    """),
    "ai.onnx.ml": _words("""
        ArrayFeatureExtractor Binarizer CastMap CategoryMapper DictVectorizer FeatureVectorizer Imputer
        LabelEncoder LinearClassifier LinearRegressor Normalizer OneHotEncoder SVMClassifier SVMRegressor
        Scaler TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor ZipMap
    """),
    "com.microsoft": _words("CDist MurmurHash3 Tokenizer"),
}

OLDEST_OPSET: Final[Mapping[str, int]] = {"": 7, "ai.onnx.ml": 1}
OLDEST_IR: Final = 3


def domain_of(domain: str) -> str:
    """A domain under its one name."""
    return "" if domain in ONNX else domain
