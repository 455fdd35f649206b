# The addon for node-gyp; CMakeLists.txt builds the same from the same native/sources.json and says why each flag is there.
# scripts/addon.mjs passes cuda, nvcc, toolkit and gencode. gyp knows no flags per file: each instruction set is a static library.
{
  'variables': {
    'cuda%': '0',
    'nvcc%': 'nvcc',
    'toolkit%': '/usr/local/cuda',
    'gencode%': '',
  },
  'target_defaults': {
    'include_dirs': [
      'native/src',
      'native',
      '<!(node -p "require(\'node-addon-api\').include_dir")',
    ],
    'defines': ['NAPI_VERSION=8', 'NDEBUG'],
    'cflags!': ['-fno-exceptions'],
    'cflags_cc!': ['-fno-exceptions', '-fno-rtti', '-std=gnu++17', '-std=gnu++20'],
    'cflags_cc': ['-std=c++20', '-O3', '-fPIC', '-fvisibility=hidden', '-fvisibility-inlines-hidden', '-Wall', '-Wextra',
                  '-Wno-missing-field-initializers', '-Wno-restrict', '-ffp-contract=off', '-fno-math-errno'],
    'xcode_settings': {
      'CLANG_CXX_LANGUAGE_STANDARD': 'c++20',
      'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
      'GCC_ENABLE_CPP_RTTI': 'YES',
      'GCC_SYMBOLS_PRIVATE_EXTERN': 'YES',
      'MACOSX_DEPLOYMENT_TARGET': '11.0',
      'OTHER_CFLAGS': ['-O3', '-ffp-contract=off', '-fno-math-errno'],
    },
    'msvs_settings': {
      'VCCLCompilerTool': {
        'ExceptionHandling': 1,
        'RuntimeTypeInfo': 'true',
        'AdditionalOptions': ['/std:c++20', '/utf-8', '/permissive-', '/bigobj'],
      },
    },
    'conditions': [
      ['OS=="win"', { 'defines': ['NOMINMAX', 'WIN32_LEAN_AND_MEAN'] }],
      ['cuda==1', { 'defines': ['WARPSIGHT_CUDA=1'], 'include_dirs': ['<(toolkit)/include'] }],
    ],
  },
  'targets': [
    {
      'target_name': 'warpsight',
      'sources': [
        '<!@(node scripts/sources.mjs addon core cpu)',
      ],
      'dependencies': ['avx2', 'avx_vnni', 'avx512', 'avx512_vnni', 'avx512_bf16', 'amx', 'neon', 'neon_dotprod'],
      'conditions': [
        ['OS=="linux"', { 'ldflags': ['-Wl,-z,now'], 'libraries': ['-lpthread', '-ldl'] }],
        ['cuda==1', {
          'sources': ['<!@(node scripts/sources.mjs cuda)'],
          'rules': [{
            'rule_name': 'nvcc',
            'extension': 'cu',
            'inputs': ['<!@(node scripts/sources.mjs headers)'],
            'outputs': ['<(INTERMEDIATE_DIR)/<(RULE_INPUT_ROOT).cu.o'],
            'process_outputs_as_sources': 1,
            'action': ['<(nvcc)', '-c', '-O3', '-std=c++20', '-lineinfo', '-DNDEBUG', '-DWARPSIGHT_CUDA=1',
                       '-Xcompiler=-fPIC,-fvisibility=hidden,-Wall', '-Inative/src', '-Inative',
                       '<!@(node -p "\'<(gencode)\'")', '-o', '<@(_outputs)', '<(RULE_INPUT_PATH)'],
            'message': 'nvcc <(RULE_INPUT_PATH)',
          }],
          'conditions': [
            ['OS=="linux"', { 'libraries': ['<(toolkit)/lib64/libcudart_static.a', '-lrt'] }],
            ['OS=="win"', { 'libraries': ['<(toolkit)/lib/x64/cudart_static.lib'] }],
          ],
        }],
      ],
    },
    # On another architecture each compiles to a table that isn't there.
    {
      'target_name': 'avx2',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.mjs avx2)'],
      'conditions': [['target_arch=="x64"', {
        'cflags_cc': ['-mavx2', '-mfma', '-mf16c'],
        'xcode_settings': { 'OTHER_CFLAGS': ['-mavx2', '-mfma', '-mf16c'] },
        'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['/arch:AVX2'] } },
      }]],
    },
    {
      'target_name': 'avx_vnni',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.mjs avx_vnni)'],
      'conditions': [['target_arch=="x64"', {
        'cflags_cc': ['-mavx2', '-mavxvnni', '-mfma', '-mf16c'],
        'xcode_settings': { 'OTHER_CFLAGS': ['-mavx2', '-mavxvnni', '-mfma', '-mf16c'] },
        'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['/arch:AVX2'] } },
      }]],
    },
    {
      'target_name': 'avx512',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.mjs avx512)'],
      'conditions': [['target_arch=="x64"', {
        'cflags_cc': ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mfma', '-mf16c'],
        'xcode_settings': { 'OTHER_CFLAGS': ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mfma', '-mf16c'] },
        'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['/arch:AVX512'] } },
      }]],
    },
    {
      'target_name': 'avx512_vnni',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.mjs avx512_vnni)'],
      'conditions': [['target_arch=="x64"', {
        'cflags_cc': ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mavx512vnni', '-mfma', '-mf16c'],
        'xcode_settings': {
          'OTHER_CFLAGS': ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mavx512vnni', '-mfma', '-mf16c'],
        },
        'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['/arch:AVX512'] } },
      }]],
    },
    {
      'target_name': 'avx512_bf16',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.mjs avx512_bf16)'],
      'conditions': [['target_arch=="x64"', {
        'cflags_cc': ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mavx512bf16', '-mfma', '-mf16c'],
        'xcode_settings': {
          'OTHER_CFLAGS': ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mavx512bf16', '-mfma', '-mf16c'],
        },
        'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['/arch:AVX512'] } },
      }]],
    },
    {
      'target_name': 'amx',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.mjs amx)'],
      'conditions': [['target_arch=="x64"', {
        'cflags_cc': [
          '-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mavx512bf16', '-mfma', '-mf16c',
          '-mamx-tile', '-mamx-bf16', '-mamx-int8',
        ],
      }]],
    },
    {
      'target_name': 'neon',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.mjs neon)'],
      'conditions': [['target_arch=="arm64"', { 'cflags_cc': ['-fno-schedule-insns'] }]],  # as in CMakeLists.txt
    },
    {
      'target_name': 'neon_dotprod',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.mjs neon_dotprod)'],
      'conditions': [['target_arch=="arm64"', {
        'cflags_cc': ['-march=armv8.2-a+dotprod', '-fno-schedule-insns'],
        'xcode_settings': { 'OTHER_CFLAGS': ['-march=armv8.2-a+dotprod'] },
      }]],
    },
  ],
}
