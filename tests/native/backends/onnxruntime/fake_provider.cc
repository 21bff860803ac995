// What is asked of ONNX Runtime's CUDA provider: the function is that of the runtime it is linked with.

extern "C" {

int cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return 0;
}

}  // extern "C"
