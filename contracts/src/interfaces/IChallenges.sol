// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Certificate, LeafProof, PolicyAttestation, StateCommit, Task} from "./INewton.sol";
import {IResultVerifier} from "./IResultVerifier.sol";

// Challenges [design 3.4, 3.5; docs/protocol.md, 12].

/// @notice An attestation as it was signed, with the task it answers. Everything is checked against storage: the task by
/// its hash, the certificate by the keys of the set it names. Of a stored answer's own certificate only setId and
/// nonSignerBitmap count: its signature was verified when it was stored.
struct AttestationEvidence {
    Task task;
    PolicyAttestation attestation;
    Certificate certificate;
}

/// @notice Shows the secrets leaf of attestation.data[index] in the task's state; valueHash is zero if there is none.
struct SecretsProof {
    uint256 index;
    bytes32 valueHash;
    LeafProof proof;
}

/// @notice Challenges: permissionless, gas is the only cost, verification is the spam filter. Classes are the rows of the
/// matrix in docs/protocol.md, 12. Evidence that proves nothing reverts and leaves no trace.
interface IChallengeVerifier {
    /// @notice A challenge of an attestation succeeded: these operators were slashed for a row of the matrix.
    event AttestationChallenged(bytes32 indexed taskId, uint8 indexed class, address[] signers);
    /// @notice A challenge of a state commit succeeded.
    event CommitChallenged(uint64 indexed sequenceNo, uint8 indexed class, address[] signers);
    /// @notice These operators have paid for what they signed under these digests, which are the same unless two
    /// signatures together were the offence. Comes before the event of the challenge.
    event SignersPunished(bytes32 indexed digest, bytes32 indexed otherDigest, address[] signers);
    /// @notice The evidence is what was signed, and no class holds.
    event TaskChallengedUnsuccessfully(bytes32 indexed taskId, address indexed challenger);
    event CommitChallengedUnsuccessfully(uint64 indexed sequenceNo, address indexed challenger);
    /// @notice Results are decided here from now on when a challenger brings a proof of this kind; zero: nowhere.
    event ResultVerifierSet(uint8 indexed proofKind, address verifier);

    error ChallengeTooLate(uint64 lastBlock, uint64 blockNumber);
    error MaxSignersOutOfRange(uint256 maximum, uint256 got);
    error AlreadyPunished(bytes32 digest);
    error DifferentTasks(bytes32 taskId, bytes32 otherTaskId);
    error DifferentSequences(uint64 sequenceNo, uint64 otherSequenceNo);
    error BindingOutOfRange(uint256 index, uint256 length);
    error InvalidSecretsProof(uint256 index);
    error NoResultVerifier(uint8 proofKind);

    /// @notice Compares an attestation with its task and the rows (classes 3 to 8, 10, 12, 13, 15) and slashes up to
    /// maxSigners of the guilty signers who have not paid for it yet; repeat it for the rest. Returns the class, zero if
    /// none holds. secrets may be empty; a proof is needed only for a wrong secrets leaf.
    function challengeAttestation(
        AttestationEvidence calldata evidence,
        SecretsProof[] calldata secrets,
        uint256 maxSigners
    ) external returns (uint8 class);
    /// @notice Has the result of an attestation decided by the verifier for this kind of proof (class 9).
    function challengeResult(
        AttestationEvidence calldata evidence,
        uint8 proofKind,
        bytes calldata proof,
        uint256 maxSigners
    ) external returns (uint8 class);
    /// @notice Has a signed state commit, accepted or not, decided in the same way (class 14); one under rules that were
    /// not in force at its boundary needs no proof.
    function challengeCommit(
        StateCommit calldata commit,
        Certificate calldata certificate,
        uint8 proofKind,
        bytes calldata proof,
        uint256 maxSigners
    ) external returns (uint8 class);
    /// @notice Slashes the keys that signed two attestations for one task (class 16).
    function challengeEquivocation(
        AttestationEvidence calldata evidence,
        PolicyAttestation calldata other,
        Certificate calldata otherCertificate,
        uint256 maxSigners
    ) external returns (uint8 class);
    /// @notice Slashes the keys that signed two commits for one sequence number (class 16).
    function challengeEquivocation(
        StateCommit calldata commit,
        Certificate calldata certificate,
        StateCommit calldata other,
        Certificate calldata otherCertificate,
        uint256 maxSigners
    ) external returns (uint8 class);
    /// @notice Names who decides about results for a kind of proof: 1 re-execution by enclaves, 2 SP1. Owner only.
    function setResultVerifier(uint8 proofKind, IResultVerifier verifier) external;

    function resultVerifier(uint8 proofKind) external view returns (IResultVerifier);
    /// @notice True if the operator has paid for signing this digest.
    function isPunished(bytes32 digest, address operator) external view returns (bool);
    /// @notice Last block in which an attestation can be challenged.
    function lastChallengeBlock(Task calldata task, PolicyAttestation calldata attestation)
        external
        view
        returns (uint64);
}

/// @notice What challenges ask about signers. The operator registry implements it; it answers about every set there ever
/// was, whatever became of its members.
interface ISignerHistory {
    /// @notice Reverts unless the certificate is a signature over digest by the members of its set that it names as signers:
    /// one is enough, and the set may be of any age. Proves who signed; what a certificate is worth is for
    /// ICertificateVerifier.
    function verifySigners(bytes32 digest, Certificate calldata certificate) external view returns (uint256 signers);
    /// @notice Number of a set's members.
    function memberCount(uint64 setId) external view returns (uint256);
    /// @notice Who stood at an index in a set; zeros if nobody did.
    function memberAt(uint64 setId, uint8 index) external view returns (address operator, bytes32 blsKeyHash);
    /// @notice The image that a key was admitted under, zero if it never was.
    function imageOf(bytes32 blsKeyHash) external view returns (bytes32 pcr0Hash);
}
