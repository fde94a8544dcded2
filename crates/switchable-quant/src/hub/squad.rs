//! The files of SQuAD, with what they must be.
//!
//! Source: <https://rajpurkar.github.io/SQuAD-explorer/>, arXiv:1606.05250 and arXiv:1806.03822.

/// A file of the data set's site.
#[derive(Debug)]
pub(super) struct SquadFile {
    /// The argument that means it.
    pub(super) argument: &'static str,
    pub(super) name: &'static str,
    pub(super) bytes: u64,
    pub(super) sha256: &'static str,
}

const FILES: [SquadFile; 4] = [
    SquadFile {
        argument: "squad",
        name: "dev-v1.1.json",
        bytes: 4_854_279,
        sha256: "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9",
    },
    SquadFile {
        argument: "squad-train",
        name: "train-v1.1.json",
        bytes: 30_288_272,
        sha256: "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955",
    },
    SquadFile {
        argument: "squad2",
        name: "dev-v2.0.json",
        bytes: 4_370_528,
        sha256: "80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8",
    },
    SquadFile {
        argument: "squad2-train",
        name: "train-v2.0.json",
        bytes: 42_123_633,
        sha256: "68dcfbb971bd3e96d5b46c7177b16c1a4e7d4bdef19fb204502738552dede002",
    },
];

impl SquadFile {
    pub(super) fn named(argument: &str) -> Option<&'static Self> {
        FILES.iter().find(|file| file.argument == argument)
    }
}
