// Run an exported model on frames that examples/write_frames.py wrote, with onnxruntime's C API. Print one line for
// each frame: its probabilities, in the order of the model's labels.
//
//     g++ -std=c++17 -I INCLUDE classify.cpp LIBRARY -o classify
//     ./classify model.int8.onnx frames.raw
//
// INCLUDE is the folder of onnxruntime_c_api.h (Debian 13: package libonnxruntime-dev, /usr/include/onnxruntime).
// LIBRARY is libonnxruntime.so of the same version or a later one. The Python wheel has it in onnxruntime/capi. The
// program loads it as libonnxruntime.so.1: make a link with that name in a folder of LD_LIBRARY_PATH.
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

const OrtApi *api = nullptr;

void check(OrtStatus *status) {
  if (status == nullptr) return;
  const std::string message = api->GetErrorMessage(status);
  api->ReleaseStatus(status);
  throw std::runtime_error(message);
}

template <typename T, typename Release>
std::unique_ptr<T, Release> own(T *raw, Release release) {
  return {raw, release};
}

std::vector<std::uint8_t> read_all(const char *path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(std::string(path) + " cannot be opened");
  return {std::istreambuf_iterator<char>(file), {}};
}

// Return the name and the frame size of the model's only input, uint8 (N, side, side, 3).
std::pair<std::string, std::int64_t> describe_input(const OrtSession *session) {
  OrtAllocator *allocator = nullptr;
  check(api->GetAllocatorWithDefaultOptions(&allocator));
  char *raw_name = nullptr;
  check(api->SessionGetInputName(session, 0, allocator, &raw_name));
  const std::string name = raw_name;
  check(api->AllocatorFree(allocator, raw_name));
  OrtTypeInfo *raw_type = nullptr;
  check(api->SessionGetInputTypeInfo(session, 0, &raw_type));
  const auto type = own(raw_type, api->ReleaseTypeInfo);
  const OrtTensorTypeAndShapeInfo *tensor = nullptr;
  check(api->CastTypeInfoToTensorInfo(type.get(), &tensor));
  std::int64_t shape[4] = {};
  check(api->GetDimensions(tensor, shape, 4));
  return {name, shape[1]};
}

void classify(const char *model, const char *frames) {
  OrtEnv *raw_env = nullptr;
  check(api->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "capsule-edge", &raw_env));
  const auto env = own(raw_env, api->ReleaseEnv);
  OrtSessionOptions *raw_options = nullptr;
  check(api->CreateSessionOptions(&raw_options));
  const auto options = own(raw_options, api->ReleaseSessionOptions);
  check(api->SetIntraOpNumThreads(options.get(), 2));
  // Open the file from memory, because paths are wide strings on Windows.
  const std::vector<std::uint8_t> file = read_all(model);
  OrtSession *raw_session = nullptr;
  check(api->CreateSessionFromArray(env.get(), file.data(), file.size(), options.get(), &raw_session));
  const auto session = own(raw_session, api->ReleaseSession);
  const auto [name, side] = describe_input(session.get());

  std::vector<std::uint8_t> pixels = read_all(frames);
  const std::size_t bytes = static_cast<std::size_t>(side * side * 3);
  if (pixels.empty() || pixels.size() % bytes != 0)
    throw std::runtime_error(std::string(frames) + " has " + std::to_string(pixels.size()) +
                             " bytes, expected a multiple of " + std::to_string(bytes));
  OrtMemoryInfo *raw_memory = nullptr;
  check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &raw_memory));
  const auto memory = own(raw_memory, api->ReleaseMemoryInfo);

  const char *inputs[] = {name.c_str()};
  const char *outputs[] = {"probabilities"};
  const std::size_t count = pixels.size() / bytes, batch = 16;
  for (std::size_t first = 0; first < count; first += batch) {
    const std::size_t now = std::min(batch, count - first);
    const std::int64_t shape[] = {static_cast<std::int64_t>(now), side, side, 3};
    OrtValue *raw_input = nullptr;
    check(api->CreateTensorWithDataAsOrtValue(memory.get(), pixels.data() + first * bytes, now * bytes, shape, 4,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &raw_input));
    const auto input = own(raw_input, api->ReleaseValue);
    const OrtValue *given[] = {input.get()};
    OrtValue *raw_answer = nullptr;
    check(api->Run(session.get(), nullptr, inputs, given, 1, outputs, 1, &raw_answer));
    const auto answer = own(raw_answer, api->ReleaseValue);
    OrtTensorTypeAndShapeInfo *raw_info = nullptr;
    check(api->GetTensorTypeAndShape(answer.get(), &raw_info));
    const auto info = own(raw_info, api->ReleaseTensorTypeAndShapeInfo);
    std::size_t values = 0;
    check(api->GetTensorShapeElementCount(info.get(), &values));
    float *data = nullptr;
    check(api->GetTensorMutableData(answer.get(), reinterpret_cast<void **>(&data)));
    for (std::size_t at = 0; at < values; ++at)
      // Nine digits are enough to distinguish every float32.
      std::printf("%.9g%c", data[at], (at + 1) % (values / now) == 0 ? '\n' : ' ');
  }
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: classify MODEL.onnx FRAMES.raw\n");
    return 2;
  }
  api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    std::fprintf(stderr, "error: this libonnxruntime is older than the header (API %d)\n", ORT_API_VERSION);
    return 1;
  }
  try {
    classify(argv[1], argv[2]);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
