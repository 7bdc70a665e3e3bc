// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {ISignerHistory} from "../interfaces/IChallenges.sol";
import {
    Certificate,
    EnclaveAdmission,
    ICertificateVerifier,
    IOperatorRegistry,
    Operator,
    OperatorSet,
    OperatorSetMember
} from "../interfaces/INewton.sol";
import {BlsVerifier} from "../libraries/BlsVerifier.sol";
import {ChainBlock} from "../libraries/ChainBlock.sol";

/// @notice Operator sets as checkpoints, and the certificates their members sign.
/// @dev A member has an index (its bit in a certificate) that it keeps while it is a member; each index has a history, so
/// that a set of n members costs a change of one, not n. Only the hash of the aggregate key is stored: callers bring the
/// key. A set is in force from the block after it was made; of several made in one block only the last ever is.
///
/// Slashing lowers an operator's weight, not that of sets that exist: the next set gets it, when the operator is admitted
/// anew or anyone asks for it (`_reweigh`). So a set's sum is always that of its members.
abstract contract OperatorSets is ICertificateVerifier, ISignerHistory {
    /// @dev A set's two words.
    struct SetCheckpoint {
        bytes32 aggregateKeyHash;
        uint96 totalWeight;
        uint64 createdAtBlock;
        uint64 earliestValidUntil;
        uint16 count;
    }

    /// @dev What stands at an index from a set on; no key means nobody. A member may be slashed down to weight zero.
    struct MemberCheckpoint {
        bytes32 blsKeyHash;
        uint64 fromSetId;
        uint96 weight;
    }

    /// @dev A registered operator; without a key there is none. Owner and image follow from it: they are not stored twice.
    /// The last six are one word.
    struct MemberState {
        bytes32 blsKeyHash;
        bytes32 configHash;
        bytes32 tlsKeyHash;
        bytes32 bootId;
        uint96 weight;
        uint48 admittedAt;
        uint48 validUntil;
        uint48 exitAt;
        uint8 index;
        bool member;
    }

    /// @dev Where sets with members of an image end.
    struct VersionUse {
        uint64 lastSetId; // last set that held one, once none is left
        uint16 count; // members in the latest set
        bool revoked;
        uint32 number; // counted from 1
    }

    /// @dev Whose key it is or was, and the number of the image it was admitted under: one word, kept for good.
    struct KeyRecord {
        address operator;
        uint32 image;
    }

    /// @dev cleanFrom is the first set without revoked members, in force from the block after cleanSince; until then
    /// formerCleanFrom is.
    struct SetHead {
        uint64 latestSetId;
        uint64 cleanFrom;
        uint64 cleanSince;
        uint64 formerCleanFrom;
    }

    uint256 private constant MAX_MEMBERS = 256;
    uint64 private constant NEVER = type(uint64).max;

    SetHead private _setHead;
    /// @dev Last set made in an earlier block than the latest one.
    uint64 private _formerSetId;
    /// @dev Members of the latest set whose image was revoked and who have not been pruned yet.
    uint16 private _revokedMembers;
    /// @dev Images that operators were ever admitted under; they are numbered from 1.
    uint32 private _imageCount;
    /// @dev Bit i: index i is taken.
    uint256 private _taken;
    uint64[MAX_MEMBERS] private _validUntil;
    mapping(uint64 setId => SetCheckpoint) private _sets;
    /// @dev How many checkpoints an index has: eight to a word, where an array's lengths would have one each.
    uint32[MAX_MEMBERS] private _checkpoints;
    mapping(uint256 index => mapping(uint256 position => MemberCheckpoint)) private _history;
    mapping(bytes32 pcr0Hash => VersionUse) private _versionUse;
    mapping(address operator => MemberState) internal _members;
    mapping(bytes32 blsKeyHash => KeyRecord) internal _keys;
    mapping(uint32 number => bytes32 pcr0Hash) private _images;

    /// @inheritdoc ICertificateVerifier
    function verifyCertificate(
        bytes32 digest,
        Certificate calldata certificate,
        uint16 quorumBps,
        uint16 minSigners,
        uint64 maxSetAge
    ) external view returns (uint256) {
        return _verifyCertificate(digest, certificate, quorumBps, minSigners, maxSetAge);
    }

    /// @inheritdoc ISignerHistory
    function verifySigners(bytes32 digest, Certificate calldata certificate) external view returns (uint256 signers) {
        uint64 setId = certificate.setId;
        if (setId > _setHead.latestSetId) revert UnknownSet(setId);
        bytes memory key;
        (key,, signers) = _signersKey(setId, _sets[setId], certificate);
        if (signers == 0) revert TooFewSigners(1, 0);
        if (!BlsVerifier.verify(digest, key, certificate.signature)) revert InvalidSignature(digest);
    }

    /// @inheritdoc ISignerHistory
    function memberCount(uint64 setId) external view returns (uint256) {
        return _sets[setId].count;
    }

    /// @inheritdoc ISignerHistory
    function memberAt(uint64 setId, uint8 index) external view returns (address operator, bytes32 blsKeyHash) {
        blsKeyHash = _memberAt(setId, index).blsKeyHash;
        if (blsKeyHash != 0) operator = _keys[blsKeyHash].operator;
    }

    /// @inheritdoc ISignerHistory
    function imageOf(bytes32 blsKeyHash) external view returns (bytes32 pcr0Hash) {
        return _imageOf(blsKeyHash);
    }

    function __OperatorSets_init() internal {
        // Set 0 is empty; its aggregate is infinity.
        _sets[0].aggregateKeyHash = keccak256(new bytes(BlsVerifier.G2_LENGTH));
        _sets[0].earliestValidUntil = NEVER;
    }

    function _verifyCertificate(
        bytes32 digest,
        Certificate calldata certificate,
        uint16 quorumBps,
        uint16 minSigners,
        uint64 maxSetAge
    ) internal view returns (uint256 signedWeight) {
        bytes memory key;
        (key, signedWeight) = _quorumKey(certificate, quorumBps, minSigners, maxSetAge);
        if (!BlsVerifier.verify(digest, key, certificate.signature)) revert InvalidSignature(digest);
    }

    /// @dev The key that a certificate's signature must be under; reverts unless its signers are a quorum of a set that may
    /// certify. The signature is still to be verified.
    function _quorumKey(Certificate calldata certificate, uint16 quorumBps, uint16 minSigners, uint64 maxSetAge)
        internal
        view
        returns (bytes memory key, uint256 signedWeight)
    {
        uint64 setId = certificate.setId;
        SetCheckpoint memory set = _sets[setId];
        _requireUsable(setId, set, maxSetAge);

        uint256 signers;
        (key, signedWeight, signers) = _signersKey(setId, set, certificate);
        if (signers < minSigners || signers == 0) revert TooFewSigners(minSigners, signers);
        if (
            signedWeight * 3 < uint256(set.totalWeight) * 2
                || (quorumBps > 6667 && signedWeight * 10_000 < uint256(set.totalWeight) * quorumBps)
        ) revert QuorumNotReached(signedWeight, set.totalWeight, quorumBps);
    }

    /// @dev The sum of the signers' keys, their weight and their number. Nothing of it is believed from the certificate but
    /// who did not sign.
    function _signersKey(uint64 setId, SetCheckpoint memory set, Certificate calldata certificate)
        private
        view
        returns (bytes memory key, uint256 weight, uint256 signers)
    {
        bytes32 keyHash = keccak256(certificate.aggregateKey);
        if (keyHash != set.aggregateKeyHash) revert AggregateKeyMismatch(set.aggregateKeyHash, keyHash);
        key = certificate.aggregateKey;
        weight = set.totalWeight;
        signers = set.count;
        if (certificate.nonSignerBitmap != 0) {
            (bytes memory absentKey, uint256 absentWeight, uint256 absent) =
                _nonSigners(setId, certificate.nonSignerBitmap, certificate.nonSignerKeys);
            weight -= absentWeight;
            signers -= absent;
            key = BlsVerifier.add(key, BlsVerifier.negate(absentKey));
        } else if (certificate.nonSignerKeys.length != 0) {
            revert NonSignerKeysLength(0, certificate.nonSignerKeys.length);
        }
    }

    /// @dev Puts an admitted key into set `setId` and returns the operator's index and the new aggregate key.
    function _put(
        EnclaveAdmission calldata admission,
        uint96 weight,
        bytes memory key,
        bytes memory formerKey,
        bytes memory aggregate,
        uint64 setId
    ) internal returns (uint8 index, bytes memory) {
        MemberState storage state = _members[admission.operator];
        if (state.member) {
            index = state.index;
            aggregate = _subtract(aggregate, state.blsKeyHash, formerKey);
            _forget(state, setId);
        } else {
            if (formerKey.length != 0) revert InvalidPointLength(0, formerKey.length);
            index = _freeIndex();
            // forge-lint: disable-next-line(incorrect-shift)
            _taken |= 1 << index;
        }
        SetCheckpoint storage set = _sets[setId];
        set.totalWeight += weight;
        set.count += 1;
        _validUntil[index] = admission.validUntil;
        _record(index, admission.blsKeyHash, setId, weight);
        VersionUse storage use = _versionUse[admission.pcr0Hash];
        use.count += 1;
        uint32 image = use.number;
        if (image == 0) {
            image = ++_imageCount;
            use.number = image;
            _images[image] = admission.pcr0Hash;
        }
        _keys[admission.blsKeyHash] = KeyRecord({operator: admission.operator, image: image});
        _members[admission.operator] = MemberState({
            blsKeyHash: admission.blsKeyHash,
            configHash: admission.configHash,
            tlsKeyHash: admission.tlsKeyHash,
            bootId: admission.bootId,
            weight: weight,
            admittedAt: SafeCast.toUint48(ChainBlock.number()),
            validUntil: SafeCast.toUint48(admission.validUntil),
            exitAt: 0,
            index: index,
            member: true
        });
        return (index, BlsVerifier.add(aggregate, key));
    }

    /// @dev Takes a member out of set `setId` and returns the new aggregate key.
    function _remove(address operator, uint8 reason, bytes memory key, bytes memory aggregate, uint64 setId)
        internal
        returns (bytes memory)
    {
        MemberState storage state = _members[operator];
        aggregate = _subtract(aggregate, state.blsKeyHash, key);
        _forget(state, setId);
        uint8 index = state.index;
        // forge-lint: disable-next-line(incorrect-shift)
        _taken &= ~(1 << index);
        _validUntil[index] = 0;
        _record(index, 0, setId, 0);
        state.member = false;
        emit IOperatorRegistry.OperatorRemoved(operator, setId, index, reason);
        return aggregate;
    }

    /// @dev Gives a member the weight in set `setId` that slashing left it.
    function _reweigh(address operator, uint64 setId) internal {
        MemberState storage state = _members[operator];
        if (!state.member) revert IOperatorRegistry.OperatorNotAdmitted(operator);
        (uint8 index, uint96 weight) = (state.index, state.weight);
        uint96 former = _weightInSet(index);
        if (former == weight) revert IOperatorRegistry.NothingToReweigh(operator, weight);
        _sets[setId].totalWeight -= former - weight;
        _record(index, state.blsKeyHash, setId, weight);
        emit IOperatorRegistry.OperatorReweighed(operator, setId, index, weight);
    }

    /// @dev Opens the next set as a copy of the latest one.
    function _nextSetId() internal returns (uint64 setId) {
        uint64 latest = _setHead.latestSetId;
        SetCheckpoint storage from = _sets[latest];
        uint64 number = ChainBlock.number();
        if (from.createdAtBlock != number) _formerSetId = latest;
        setId = latest + 1;
        SetCheckpoint storage to = _sets[setId];
        (to.totalWeight, to.createdAtBlock, to.count) = (from.totalWeight, number, from.count);
        _setHead.latestSetId = setId;
    }

    /// @dev Completes a set that was opened and changed; returns its number of members.
    function _closeSet(uint64 setId, bytes memory aggregate) internal returns (uint256 count) {
        SetCheckpoint storage set = _sets[setId];
        set.aggregateKeyHash = keccak256(aggregate);
        uint64 earliest = _earliestValidUntil();
        set.earliestValidUntil = earliest;
        count = set.count;
        emit IOperatorRegistry.OperatorSetChanged(setId, set.aggregateKeyHash, set.totalWeight, earliest, aggregate);
        // As long as a revoked member is left, the new set certifies nothing either.
        if (_revokedMembers != 0) _raiseCleanFrom(setId + 1);
    }

    /// @dev The aggregate key the caller brought, checked against the latest set.
    function _openAggregate(bytes calldata currentAggregateKey) internal view returns (bytes memory) {
        bytes32 expected = _sets[_setHead.latestSetId].aggregateKeyHash;
        bytes32 got = keccak256(currentAggregateKey);
        if (got != expected) revert AggregateKeyMismatch(expected, got);
        return currentAggregateKey;
    }

    /// @dev From the next block on, sets with members of this image certify nothing.
    function _invalidateVersion(bytes32 pcr0Hash) internal {
        VersionUse storage use = _versionUse[pcr0Hash];
        use.revoked = true;
        _revokedMembers += use.count;
        uint64 cleanFrom;
        if (use.count != 0) cleanFrom = _setHead.latestSetId + 1;
        else if (use.lastSetId != 0) cleanFrom = use.lastSetId + 1;
        _raiseCleanFrom(cleanFrom);
        emit IOperatorRegistry.SetsInvalidated(_setHead.cleanFrom, pcr0Hash);
    }

    /// @dev Weight and number of members in the latest set, in force or not.
    function _liveWeight() internal view returns (uint256 weight, uint256 count) {
        SetCheckpoint storage set = _sets[_setHead.latestSetId];
        return (set.totalWeight, set.count);
    }

    /// @dev An operator's row as it is shown; all zero if it is not registered.
    function _operator(address account) internal view returns (Operator memory result) {
        MemberState memory state = _members[account];
        if (state.blsKeyHash == 0) return result;
        return Operator({
            owner: account,
            blsKeyHash: state.blsKeyHash,
            weight: state.weight,
            pcr0Hash: _imageOf(state.blsKeyHash),
            configHash: state.configHash,
            tlsKeyHash: state.tlsKeyHash,
            bootId: state.bootId,
            admittedAt: state.admittedAt,
            validUntil: state.validUntil,
            exitAt: state.exitAt
        });
    }

    /// @dev The image that a key was admitted under.
    function _imageOf(bytes32 blsKeyHash) internal view returns (bytes32 pcr0Hash) {
        return _images[_keys[blsKeyHash].image];
    }

    function _latestSetId() internal view returns (uint64) {
        return _setHead.latestSetId;
    }

    function _currentSetId() internal view returns (uint64) {
        uint64 latest = _setHead.latestSetId;
        return latest == 0 || _sets[latest].createdAtBlock < ChainBlock.number() ? latest : _formerSetId;
    }

    function _firstCleanSetId() internal view returns (uint64) {
        SetHead memory head = _setHead;
        return head.cleanSince < ChainBlock.number() ? head.cleanFrom : head.formerCleanFrom;
    }

    function _operatorSet(uint64 setId) internal view returns (OperatorSet memory result) {
        if (setId > _setHead.latestSetId) revert UnknownSet(setId);
        SetCheckpoint memory set = _sets[setId];
        result.setId = setId;
        result.aggregateKeyHash = set.aggregateKeyHash;
        result.totalWeight = set.totalWeight;
        result.createdAtBlock = set.createdAtBlock;
        result.earliestValidUntil = set.earliestValidUntil;
        result.members = new OperatorSetMember[](set.count);
        uint256 found;
        for (uint256 index = 0; index < MAX_MEMBERS && found < set.count; ++index) {
            MemberCheckpoint memory member = _memberAt(setId, index);
            if (member.blsKeyHash == 0) continue;
            result.members[found++] = OperatorSetMember({
                // Below MAX_MEMBERS.
                // forge-lint: disable-next-line(unsafe-typecast)
                index: uint8(index),
                operator: _keys[member.blsKeyHash].operator,
                blsKeyHash: member.blsKeyHash,
                weight: member.weight
            });
        }
    }

    /// @dev A set certifies while it is in force and maxSetAge blocks longer, unless a member expired or was revoked.
    function _requireUsable(uint64 setId, SetCheckpoint memory set, uint64 maxSetAge) private view {
        SetHead memory head = _setHead;
        if (setId > head.latestSetId) revert UnknownSet(setId);
        uint64 number = ChainBlock.number();
        if (set.count == 0 || set.totalWeight == 0) revert EmptySet(setId);
        if (set.createdAtBlock >= number) revert SetNotInForceYet(setId, set.createdAtBlock);
        if (setId != head.latestSetId) {
            // Made in the same block as its successor, it never was in force.
            uint64 supersededAt = _sets[setId + 1].createdAtBlock;
            if (supersededAt == set.createdAtBlock) revert UnknownSet(setId);
            if (supersededAt + maxSetAge < number) revert SetTooOld(setId, supersededAt, maxSetAge);
        }
        uint64 cleanFrom = head.cleanSince < number ? head.cleanFrom : head.formerCleanFrom;
        if (setId < cleanFrom) revert SetHasRevokedMember(setId, cleanFrom);
        if (set.earliestValidUntil <= block.timestamp) revert SetHasExpiredMember(setId, set.earliestValidUntil);
    }

    /// @dev Sum of the keys of the members named by `bitmap`, checked one by one, and their weight and number.
    function _nonSigners(uint64 setId, uint256 bitmap, bytes calldata keys)
        private
        view
        returns (bytes memory sum, uint256 weight, uint256 count)
    {
        for (uint256 rest = bitmap; rest != 0; ++count) {
            uint8 index = _lowestBit(rest);
            rest &= rest - 1;
            MemberCheckpoint memory member = _memberAt(setId, index);
            if (member.blsKeyHash == 0) revert NonSignerNotMember(index);
            uint256 start = count * BlsVerifier.G2_LENGTH;
            if (keys.length < start + BlsVerifier.G2_LENGTH) {
                revert NonSignerKeysLength(start + BlsVerifier.G2_LENGTH, keys.length);
            }
            bytes calldata key = keys[start:start + BlsVerifier.G2_LENGTH];
            bytes32 keyHash = keccak256(key);
            if (keyHash != member.blsKeyHash) revert NonSignerKeyMismatch(index, member.blsKeyHash, keyHash);
            weight += member.weight;
            sum = count == 0 ? key : BlsVerifier.add(sum, key);
        }
        if (keys.length != count * BlsVerifier.G2_LENGTH) {
            revert NonSignerKeysLength(count * BlsVerifier.G2_LENGTH, keys.length);
        }
    }

    /// @dev What stood at an index in a set. Searched from the end: certificates are about recent sets.
    function _memberAt(uint64 setId, uint256 index) private view returns (MemberCheckpoint memory member) {
        mapping(uint256 => MemberCheckpoint) storage history = _history[index];
        for (uint256 i = _checkpoints[index]; i != 0; --i) {
            member = history[i - 1];
            if (member.fromSetId <= setId) return member;
        }
        return MemberCheckpoint({blsKeyHash: 0, fromSetId: 0, weight: 0});
    }

    /// @dev Notes what stands at an index from a set on.
    function _record(uint8 index, bytes32 blsKeyHash, uint64 setId, uint96 weight) private {
        uint32 position = _checkpoints[index]++;
        _history[index][position] = MemberCheckpoint({blsKeyHash: blsKeyHash, fromSetId: setId, weight: weight});
    }

    /// @dev What the member at an index signs with in the latest set: more than its operator's weight after slashing.
    function _weightInSet(uint8 index) private view returns (uint96) {
        return _history[index][_checkpoints[index] - 1].weight;
    }

    /// @dev Takes a member's weight and image out of the set's sums.
    function _forget(MemberState storage state, uint64 setId) private {
        SetCheckpoint storage set = _sets[setId];
        set.totalWeight -= _weightInSet(state.index);
        set.count -= 1;
        VersionUse storage use = _versionUse[_imageOf(state.blsKeyHash)];
        use.count -= 1;
        if (use.count == 0) use.lastSetId = setId - 1;
        if (use.revoked) _revokedMembers -= 1;
    }

    function _raiseCleanFrom(uint64 cleanFrom) private {
        SetHead storage head = _setHead;
        if (cleanFrom <= head.cleanFrom) return;
        uint64 number = ChainBlock.number();
        if (head.cleanSince != number) {
            head.formerCleanFrom = head.cleanFrom;
            head.cleanSince = number;
        }
        head.cleanFrom = cleanFrom;
    }

    function _subtract(bytes memory aggregate, bytes32 expectedHash, bytes memory key)
        private
        view
        returns (bytes memory)
    {
        bytes32 keyHash = keccak256(key);
        if (keyHash != expectedHash) revert IOperatorRegistry.KeyHashMismatch(expectedHash, keyHash);
        return BlsVerifier.add(aggregate, BlsVerifier.negate(key));
    }

    function _earliestValidUntil() private view returns (uint64 earliest) {
        earliest = NEVER;
        for (uint256 rest = _taken; rest != 0; rest &= rest - 1) {
            uint64 validUntil = _validUntil[_lowestBit(rest)];
            if (validUntil < earliest) earliest = validUntil;
        }
    }

    function _freeIndex() private view returns (uint8) {
        uint256 free = ~_taken;
        if (free == 0) revert IOperatorRegistry.SetFull();
        return _lowestBit(free);
    }

    /// @dev Position of the lowest bit set; `bits` is not zero.
    function _lowestBit(uint256 bits) private pure returns (uint8 position) {
        bits &= ~bits + 1;
        if (bits & 0xffffffffffffffffffffffffffffffff == 0) position += 128;
        if (bits & 0x0000000000000000ffffffffffffffff0000000000000000ffffffffffffffff == 0) position += 64;
        if (bits & 0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff == 0) position += 32;
        if (bits & 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff == 0) position += 16;
        if (bits & 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff == 0) position += 8;
        if (bits & 0x0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f == 0) position += 4;
        if (bits & 0x3333333333333333333333333333333333333333333333333333333333333333 == 0) position += 2;
        if (bits & 0x5555555555555555555555555555555555555555555555555555555555555555 == 0) position += 1;
    }
}
