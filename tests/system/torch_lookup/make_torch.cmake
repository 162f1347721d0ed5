# A folder as a LibTorch of that version has it.
function(make_torch root version abi)
    string(REPLACE "." ";" numbers "${version}")
    list(GET numbers 0 major)
    list(GET numbers 1 minor)
    file(WRITE "${root}/include/torch/headeronly/version.h"
        "#define TORCH_VERSION_MAJOR ${major}\n#define TORCH_VERSION_MINOR ${minor}\n"
        "#define TORCH_VERSION_PATCH 0\n#define TORCH_VERSION_ABI_TAG 0\n")
    file(WRITE "${root}/lib/libtorch_cpu.so" "")
    file(WRITE "${root}/share/cmake/Torch/TorchConfig.cmake"
        "message(FATAL_ERROR \"the wheel's own package file is not to be used\")\n"
        "set(TORCH_CXX_FLAGS \"-D_GLIBCXX_USE_CXX11_ABI=${abi}\")\n")
endfunction()
