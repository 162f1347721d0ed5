// NVIDIA's driver as far as it is asked for its GPUs: as many as it is built with.
extern "C" {

__attribute__((visibility("default"))) int cuInit(unsigned int /*flags*/) {
    return STAND_IN_GPUS > 0 ? 0 : 100;
}
__attribute__((visibility("default"))) int cuDeviceGetCount(int* count) {
    *count = STAND_IN_GPUS;
    return 0;
}
__attribute__((visibility("default"))) int cuGetErrorString(int /*code*/, const char** text) {
    *text = "no CUDA-capable device is detected";
    return 0;
}
}
