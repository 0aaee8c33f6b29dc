//! Which digests of a file there are.

/// Which of them decide about a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::workload) struct DigestDemand {
    /// `unix:sha256`.
    pub sha256: bool,
    /// `unix:fs_verity`.
    pub fs_verity: bool,
}

/// Those that were made of one version of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::workload) struct FileDigests {
    /// Of its bytes.
    pub sha256: Option<[u8; 32]>,
    /// Its fs-verity digest: [`super::fs_verity`].
    pub fs_verity: Option<[u8; 32]>,
}

impl DigestDemand {
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// The selectors, for the log.
    pub fn selectors(self) -> &'static str {
        match (self.sha256, self.fs_verity) {
            (true, true) => "unix:sha256, unix:fs_verity",
            (false, true) => "unix:fs_verity",
            (_, false) => "unix:sha256",
        }
    }
}

impl FileDigests {
    pub fn satisfy(&self, wanted: DigestDemand) -> bool {
        (self.sha256.is_some() || !wanted.sha256) && (self.fs_verity.is_some() || !wanted.fs_verity)
    }

    /// With what only `other` has.
    pub fn or(self, other: Self) -> Self {
        Self { sha256: self.sha256.or(other.sha256), fs_verity: self.fs_verity.or(other.fs_verity) }
    }
}
