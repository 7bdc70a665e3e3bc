// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {NewtonUpgradeable} from "./base/NewtonUpgradeable.sol";
import {
    Certificate,
    ICertificateVerifier,
    IKeyRegistry,
    IStateCommitRegistry,
    KeyEpoch
} from "./interfaces/INewton.sol";
import {Digests} from "./libraries/Digests.sol";

/// @notice The master secret's public face: its commitment and each key epoch's public keys, write-once.
contract KeyRegistry is NewtonUpgradeable, EIP712, IKeyRegistry {
    ICertificateVerifier private immutable CERTIFICATES;
    IStateCommitRegistry private immutable COMMITS;

    bytes32 private _mskCommitment;
    uint64 private _keyEpoch;
    uint64 private _minKeyEpoch;
    mapping(uint64 epoch => KeyEpoch) private _epochs;

    constructor(ICertificateVerifier certificates, IStateCommitRegistry commits) EIP712("Newton Key Registry", "1") {
        CERTIFICATES = certificates;
        COMMITS = commits;
    }

    /// @notice Called once, inside the proxy's constructor.
    function initialize(address initialOwner) external initializer {
        __Ownable_init(initialOwner);
    }

    /// @inheritdoc IKeyRegistry
    function publishKeyEpoch(KeyEpoch calldata epoch, Certificate calldata certificate) external {
        uint64 next = _keyEpoch + 1;
        if (epoch.keyEpoch != next) revert KeyEpochNotNext(next, epoch.keyEpoch);
        if (epoch.mskCommitment == 0 || epoch.secretsPublicKey == 0 || epoch.privacyPublicKey == 0) revert ZeroKey();
        if (next == 1) {
            _mskCommitment = epoch.mskCommitment;
        } else if (epoch.mskCommitment != _mskCommitment) {
            revert CommitmentMismatch(_mskCommitment, epoch.mskCommitment);
        }
        (uint16 quorumBps, uint16 minSigners, uint64 maxSetAge) = COMMITS.certificateRules();
        CERTIFICATES.verifyCertificate(keyEpochDigest(epoch), certificate, quorumBps, minSigners, maxSetAge);

        _keyEpoch = next;
        _epochs[next] = epoch;
        emit KeyEpochPublished(next, epoch.mskCommitment, epoch.secretsPublicKey, epoch.privacyPublicKey);
    }

    /// @inheritdoc IKeyRegistry
    function setMinKeyEpoch(uint64 epoch) external onlyOwner {
        if (epoch < _minKeyEpoch || epoch > _keyEpoch) revert MinKeyEpochOutOfRange(_minKeyEpoch, _keyEpoch, epoch);
        _minKeyEpoch = epoch;
        emit MinKeyEpochSet(epoch);
    }

    /// @inheritdoc IKeyRegistry
    function mskCommitment() external view returns (bytes32) {
        return _mskCommitment;
    }

    /// @inheritdoc IKeyRegistry
    function keyEpoch() external view returns (uint64) {
        return _keyEpoch;
    }

    /// @inheritdoc IKeyRegistry
    function minKeyEpoch() external view returns (uint64) {
        return _minKeyEpoch;
    }

    /// @inheritdoc IKeyRegistry
    function keysOf(uint64 epoch) external view returns (KeyEpoch memory) {
        if (epoch == 0 || epoch > _keyEpoch) revert UnknownKeyEpoch(epoch);
        return _epochs[epoch];
    }

    /// @inheritdoc IKeyRegistry
    function keyEpochDigest(KeyEpoch calldata epoch) public view returns (bytes32) {
        return _hashTypedDataV4(Digests.keyEpoch(epoch));
    }
}
