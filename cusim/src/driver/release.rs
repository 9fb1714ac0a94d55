//! Releases of NVIDIA's driver: which CUDA, which PTX and which functions each of them has.

use std::sync::OnceLock;

/// A release of the driver.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    /// How `CUSIM_DRIVER` names it: the number of its branch.
    pub key: &'static str,
    /// The CUDA version that it reports, as CUDA writes versions.
    pub cuda: u32,
    /// The newest PTX version that it reads.
    pub ptx: (u32, u32),
    /// The highest number of a device attribute that it knows.
    pub attributes: u32,
}

const RELEASES: [Release; 4] = [
    Release { key: "470", cuda: 11040, ptx: (7, 4), attributes: 119 },
    Release { key: "535", cuda: 12020, ptx: (8, 2), attributes: 134 },
    Release { key: "550", cuda: 12040, ptx: (8, 4), attributes: 134 },
    Release { key: "580", cuda: 13000, ptx: (9, 0), attributes: 147 },
];

impl Release {
    /// The release of this name.
    pub fn find(key: &str) -> Option<&'static Self> {
        RELEASES.iter().find(|release| release.key == key)
    }

    /// The release where none is named: the newest.
    pub fn standard() -> &'static Self {
        &RELEASES[RELEASES.len() - 1]
    }

    /// All names.
    pub fn names() -> String {
        RELEASES.map(|release| release.key).join(", ")
    }

    /// Whether it has a function that this version of CUDA introduced.
    pub fn has(&self, since: u32) -> bool {
        since <= self.cuda
    }

    /// Its CUDA version as people write it.
    pub fn cuda_text(&self) -> String {
        version_text(self.cuda)
    }
}

/// A CUDA version as people write it.
pub fn version_text(version: u32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The release that this library stands for, as the environment said when it was first asked. `cuInit` complains about
/// a value that names none.
pub fn loaded() -> &'static Release {
    static LOADED: OnceLock<&Release> = OnceLock::new();
    LOADED.get_or_init(|| {
        let named = std::env::var("CUSIM_DRIVER").ok();
        named.and_then(|key| Release::find(&key)).unwrap_or(Release::standard())
    })
}

/// The version of CUDA that introduced a function; 0 if the oldest release has it.
pub const fn since(name: &str) -> u32 {
    let mut version = 0;
    while version < NEWER.len() {
        let (cuda, names) = NEWER[version];
        let mut index = 0;
        while index < names.len() {
            if same(names[index], name) {
                return cuda;
            }
            index += 1;
        }
        version += 1;
    }
    0
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Functions by the version of CUDA that introduced them, as far as the oldest release lacks them.
const NEWER: [(u32, &[&str]); 16] = [
    (
        11060,
        &[
            "cuArrayGetMemoryRequirements",
            "cuGraphNodeGetEnabled",
            "cuGraphNodeSetEnabled",
            "cuMipmappedArrayGetMemoryRequirements",
        ],
    ),
    (
        11070,
        &[
            "cuGraphAddBatchMemOpNode",
            "cuGraphBatchMemOpNodeGetParams",
            "cuGraphBatchMemOpNodeSetParams",
            "cuGraphExecBatchMemOpNodeSetParams",
            "cuMemGetHandleForAddressRange",
            "cuModuleGetLoadingMode",
            "cuStreamBatchMemOp_v2",
            "cuStreamWaitValue32_v2",
            "cuStreamWaitValue64_v2",
            "cuStreamWriteValue32_v2",
            "cuStreamWriteValue64_v2",
        ],
    ),
    (11080, &["cuLaunchKernelEx", "cuOccupancyMaxActiveClusters", "cuOccupancyMaxPotentialClusterSize"]),
    (
        12000,
        &[
            "cuCtxGetId",
            "cuGetProcAddress_v2",
            "cuGraphAddKernelNode_v2",
            "cuGraphExecGetFlags",
            "cuGraphExecKernelNodeSetParams_v2",
            "cuGraphExecUpdate_v2",
            "cuGraphInstantiateWithParams",
            "cuGraphKernelNodeGetParams_v2",
            "cuGraphKernelNodeSetParams_v2",
            "cuKernelGetAttribute",
            "cuKernelGetFunction",
            "cuKernelSetAttribute",
            "cuKernelSetCacheConfig",
            "cuLibraryGetGlobal",
            "cuLibraryGetKernel",
            "cuLibraryGetManaged",
            "cuLibraryGetModule",
            "cuLibraryGetUnifiedFunction",
            "cuLibraryLoadData",
            "cuLibraryLoadFromFile",
            "cuLibraryUnload",
            "cuStreamGetId",
            "cuTensorMapEncodeIm2col",
            "cuTensorMapEncodeTiled",
            "cuTensorMapReplaceAddress",
        ],
    ),
    (
        12010,
        &[
            "cuCoredumpGetAttribute",
            "cuCoredumpGetAttributeGlobal",
            "cuCoredumpSetAttribute",
            "cuCoredumpSetAttributeGlobal",
            "cuCtxSetFlags",
            "cuMulticastAddDevice",
            "cuMulticastBindAddr",
            "cuMulticastBindMem",
            "cuMulticastCreate",
            "cuMulticastGetGranularity",
            "cuMulticastUnbind",
        ],
    ),
    (
        12020,
        &[
            "cuGraphAddNode",
            "cuGraphExecNodeSetParams",
            "cuGraphNodeSetParams",
            "cuMemAdvise_v2",
            "cuMemPrefetchAsync_v2",
        ],
    ),
    (
        12030,
        &[
            "cuFuncGetName",
            "cuGraphAddDependencies_v2",
            "cuGraphAddNode_v2",
            "cuGraphConditionalHandleCreate",
            "cuGraphGetEdges_v2",
            "cuGraphNodeGetDependencies_v2",
            "cuGraphNodeGetDependentNodes_v2",
            "cuGraphRemoveDependencies_v2",
            "cuKernelGetName",
            "cuStreamBeginCaptureToGraph",
            "cuStreamGetCaptureInfo_v3",
            "cuStreamUpdateCaptureDependencies_v2",
        ],
    ),
    (
        12040,
        &[
            "cuCtxFromGreenCtx",
            "cuCtxGetDevResource",
            "cuDevResourceGenerateDesc",
            "cuDevSmResourceSplitByCount",
            "cuDeviceGetDevResource",
            "cuDeviceRegisterAsyncNotification",
            "cuDeviceUnregisterAsyncNotification",
            "cuFuncGetParamInfo",
            "cuFuncIsLoaded",
            "cuFuncLoad",
            "cuGreenCtxCreate",
            "cuGreenCtxDestroy",
            "cuGreenCtxGetDevResource",
            "cuGreenCtxRecordEvent",
            "cuGreenCtxWaitEvent",
            "cuKernelGetParamInfo",
            "cuLibraryEnumerateKernels",
            "cuLibraryGetKernelCount",
            "cuModuleEnumerateFunctions",
            "cuModuleGetFunctionCount",
            "cuStreamGetGreenCtx",
        ],
    ),
    (
        12050,
        &[
            "cuCtxCreate_v4",
            "cuCtxRecordEvent",
            "cuCtxWaitEvent",
            "cuGreenCtxStreamCreate",
            "cuKernelGetLibrary",
            "cuStreamGetCtx_v2",
        ],
    ),
    (
        12080,
        &[
            "cuEventElapsedTime_v2",
            "cuMemBatchDecompressAsync",
            "cuMemcpy3DBatchAsync",
            "cuMemcpyBatchAsync",
            "cuStreamGetDevice",
            "cuTensorMapEncodeIm2colWide",
        ],
    ),
    (
        12090,
        &[
            "cuLogsCurrent",
            "cuLogsDumpToFile",
            "cuLogsDumpToMemory",
            "cuLogsRegisterCallback",
            "cuLogsUnregisterCallback",
        ],
    ),
    (
        13000,
        &[
            "cuCtxGetDevice_v2",
            "cuCtxSynchronize_v2",
            "cuDeviceGetHostAtomicCapabilities",
            "cuDeviceGetP2PAtomicCapabilities",
            "cuGreenCtxGetId",
            "cuMemDiscardAndPrefetchBatchAsync",
            "cuMemDiscardBatchAsync",
            "cuMemGetDefaultMemPool",
            "cuMemGetMemPool",
            "cuMemPrefetchBatchAsync",
            "cuMemSetMemPool",
            "cuMemcpy3DBatchAsync_v2",
            "cuMemcpyBatchAsync_v2",
        ],
    ),
    (
        13010,
        &[
            "cuDevSmResourceSplit",
            "cuGraphExecGetId",
            "cuGraphGetId",
            "cuGraphNodeGetContainingGraph",
            "cuGraphNodeGetLocalId",
            "cuGraphNodeGetToolsId",
            "cuMulticastBindAddr_v2",
            "cuMulticastBindMem_v2",
            "cuStreamGetDevResource",
        ],
    ),
    (
        13020,
        &[
            "cuCoredumpDeregisterCompleteCallback",
            "cuCoredumpDeregisterStartCallback",
            "cuCoredumpRegisterCompleteCallback",
            "cuCoredumpRegisterStartCallback",
            "cuFuncGetParamCount",
            "cuGraphNodeGetParams",
            "cuKernelGetParamCount",
            "cuLaunchHostFunc_v2",
            "cuMemcpy3DWithAttributesAsync",
            "cuMemcpyWithAttributesAsync",
            "cuStreamBeginCaptureToCig",
            "cuStreamEndCaptureToCig",
        ],
    ),
    (
        13030,
        &[
            "cuLogicalEndpointAddDevice",
            "cuLogicalEndpointBindAddr",
            "cuLogicalEndpointBindMem",
            "cuLogicalEndpointCreate",
            "cuLogicalEndpointDestroy",
            "cuLogicalEndpointExport",
            "cuLogicalEndpointGetLimits",
            "cuLogicalEndpointIdRelease",
            "cuLogicalEndpointIdReserve",
            "cuLogicalEndpointImport",
            "cuLogicalEndpointQuery",
            "cuLogicalEndpointUnbind",
            "cuStreamBeginRecaptureToGraph",
        ],
    ),
    (
        13040,
        &[
            "cuDeviceGetCliqueCount",
            "cuDeviceGetCliqueInfo",
            "cuDeviceGetFabricClusterUuid",
            "cuGraphAddNode_v3",
            "cuGraphNodeSetParams_v2",
            "cuMemGetLocationInfo",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_newer_function_is_one_that_the_library_exports() {
        let exported: Vec<&str> = include_str!("../../tests/symbols.txt").lines().collect();
        for name in NEWER.iter().flat_map(|(_, names)| names.iter()) {
            assert!(exported.contains(name), "{name}");
        }
    }

    #[test]
    fn functions_are_as_old_as_the_headers_say() {
        let known = [
            ("cuGraphInstantiateWithFlags", 0),
            ("cuMemAllocAsync", 0),
            ("cuModuleGetLoadingMode", 11070),
            ("cuLaunchKernelEx", 11080),
            ("cuGraphExecUpdate_v2", 12000),
            ("cuGetProcAddress_v2", 12000),
            ("cuMemPrefetchAsync_v2", 12020),
            ("cuCtxCreate_v4", 12050),
            ("cuEventElapsedTime_v2", 12080),
        ];
        for (name, version) in known {
            assert_eq!(since(name), version, "{name}");
        }
        let (oldest, newest) = (Release::find("470").unwrap(), Release::standard());
        assert!(!oldest.has(since("cuLaunchKernelEx")) && newest.has(since("cuLaunchKernelEx")));
    }
}
