"""MLServer's side: the Open Inference protocol over HTTP and gRPC."""

from engine import Engine
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Model(MLModel):
    """One row at a time, or what its adaptive batching makes of them."""

    async def load(self):
        self.engine = Engine()
        return True

    async def predict(self, payload):
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype("float32", copy=False)
        answer = self.engine.run(rows)
        outputs = [NumpyCodec.encode_output(self.engine.output, answer)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
