// TensorRT's library of plug-ins: how often it was started.

extern "C" {

int starts = 0;

bool initLibNvInferPlugins(void* logger, const char* name_space) {
  ++starts;
  return logger != nullptr && *name_space == '\0';
}
}
