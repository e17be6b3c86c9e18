// Stands in for the audio library that Ollama's module leaves out (its module zip has no directory named vendor): the
// types and calls that llama.cpp's mtmd-helper.cpp names, none of which decodes anything. Every sound is refused as "not
// implemented"; text and images don't come here.
#pragma once

#include <cstddef>
#include <cstdint>

typedef std::uint64_t ma_uint64;

enum ma_result { MA_SUCCESS = 0, MA_NOT_IMPLEMENTED = -29 };
enum ma_format { ma_format_f32 };

struct ma_decoder_config {};
struct ma_decoder {};

static inline ma_decoder_config ma_decoder_config_init(ma_format, std::uint32_t, std::uint32_t) { return {}; }

static inline ma_result ma_decoder_init_memory(const void *, std::size_t, const ma_decoder_config *, ma_decoder *) {
	return MA_NOT_IMPLEMENTED;
}

static inline ma_result ma_decoder_get_length_in_pcm_frames(ma_decoder *, ma_uint64 *frames) {
	*frames = 0;
	return MA_NOT_IMPLEMENTED;
}

static inline ma_result ma_decoder_read_pcm_frames(ma_decoder *, void *, ma_uint64, ma_uint64 *read) {
	*read = 0;
	return MA_NOT_IMPLEMENTED;
}

static inline void ma_decoder_uninit(ma_decoder *) {}
