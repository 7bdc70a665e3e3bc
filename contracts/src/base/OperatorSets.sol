// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

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

    struct MemberState {
        Operator operator;
        uint8 index;
        bool member;
    }

    /// @dev Where sets with members of an image end.
    struct VersionUse {
        uint64 lastSetId; // last set that held one, once none is left
        uint16 count; // members in the latest set
        bool revoked;
        uint32 number; // position in _images, counted from 1
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
    /// @dev Bit i: index i is taken.
    uint256 private _taken;
    uint64[MAX_MEMBERS] private _validUntil;
    mapping(uint64 setId => SetCheckpoint) private _sets;
    mapping(uint256 index => MemberCheckpoint[]) private _history;
    mapping(bytes32 pcr0Hash => VersionUse) private _versionUse;
    mapping(address operator => MemberState) internal _members;
    mapping(bytes32 blsKeyHash => KeyRecord) internal _keys;
    /// @dev Images that operators were ever admitted under, by pcr0Hash.
    bytes32[] private _images;

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
    function memberAt(uint64 setId, uint8 index)
        external
        view
        returns (address operator, bytes32 blsKeyHash, bytes32 pcr0Hash)
    {
        blsKeyHash = _memberAt(setId, index).blsKeyHash;
        if (blsKeyHash == 0) return (operator, blsKeyHash, pcr0Hash);
        KeyRecord memory record = _keys[blsKeyHash];
        return (record.operator, blsKeyHash, _images[record.image - 1]);
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
        uint64 setId = certificate.setId;
        SetCheckpoint memory set = _sets[setId];
        _requireUsable(setId, set, maxSetAge);

        (bytes memory key, uint256 weight, uint256 signers) = _signersKey(setId, set, certificate);
        signedWeight = weight;
        if (signers < minSigners || signers == 0) revert TooFewSigners(minSigners, signers);
        if (
            signedWeight * 3 < uint256(set.totalWeight) * 2
                || (quorumBps > 6667 && signedWeight * 10_000 < uint256(set.totalWeight) * quorumBps)
        ) revert QuorumNotReached(signedWeight, set.totalWeight, quorumBps);
        if (!BlsVerifier.verify(digest, key, certificate.signature)) revert InvalidSignature(digest);
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
            aggregate = _subtract(aggregate, state.operator.blsKeyHash, formerKey);
            _forget(state, setId);
        } else {
            if (formerKey.length != 0) revert InvalidPointLength(0, formerKey.length);
            index = _freeIndex();
            // forge-lint: disable-next-line(incorrect-shift)
            _taken |= 1 << index;
            state.index = index;
            state.member = true;
        }
        SetCheckpoint storage set = _sets[setId];
        set.totalWeight += weight;
        set.count += 1;
        _validUntil[index] = admission.validUntil;
        _history[index].push(MemberCheckpoint({blsKeyHash: admission.blsKeyHash, fromSetId: setId, weight: weight}));
        VersionUse storage use = _versionUse[admission.pcr0Hash];
        use.count += 1;
        uint32 image = use.number;
        if (image == 0) {
            _images.push(admission.pcr0Hash);
            // Governance lists images one by one.
            // forge-lint: disable-next-line(unsafe-typecast)
            image = uint32(_images.length);
            use.number = image;
        }
        _keys[admission.blsKeyHash] = KeyRecord({operator: admission.operator, image: image});
        state.operator = Operator({
            owner: admission.operator,
            blsKeyHash: admission.blsKeyHash,
            weight: weight,
            pcr0Hash: admission.pcr0Hash,
            configHash: admission.configHash,
            tlsKeyHash: admission.tlsKeyHash,
            bootId: admission.bootId,
            admittedAt: ChainBlock.number(),
            validUntil: admission.validUntil,
            exitAt: 0
        });
        return (index, BlsVerifier.add(aggregate, key));
    }

    /// @dev Takes a member out of set `setId` and returns the new aggregate key.
    function _remove(address operator, uint8 reason, bytes memory key, bytes memory aggregate, uint64 setId)
        internal
        returns (bytes memory)
    {
        MemberState storage state = _members[operator];
        aggregate = _subtract(aggregate, state.operator.blsKeyHash, key);
        _forget(state, setId);
        uint8 index = state.index;
        // forge-lint: disable-next-line(incorrect-shift)
        _taken &= ~(1 << index);
        _validUntil[index] = 0;
        _history[index].push(MemberCheckpoint({blsKeyHash: 0, fromSetId: setId, weight: 0}));
        state.member = false;
        emit IOperatorRegistry.OperatorRemoved(operator, setId, index, reason);
        return aggregate;
    }

    /// @dev Lowers the weight an operator signs with. If it is a member, the set of this block follows: the latest one if
    /// it was made in this block and so has never been in force, else a copy of it. Keys stay as they are.
    function _lowerWeight(address operator, uint96 weight) internal returns (uint64 setId, uint96 totalWeight) {
        MemberState storage state = _members[operator];
        uint96 difference = state.operator.weight - weight;
        state.operator.weight = weight;
        if (!state.member) return (0, 0);

        setId = _setHead.latestSetId;
        SetCheckpoint storage latest = _sets[setId];
        if (latest.createdAtBlock != ChainBlock.number()) {
            setId = _nextSetId();
            SetCheckpoint storage copy = _sets[setId];
            (copy.aggregateKeyHash, copy.earliestValidUntil) = (latest.aggregateKeyHash, latest.earliestValidUntil);
            if (_revokedMembers != 0) _raiseCleanFrom(setId + 1);
        }
        totalWeight = _sets[setId].totalWeight - difference;
        _sets[setId].totalWeight = totalWeight;

        MemberCheckpoint[] storage history = _history[state.index];
        MemberCheckpoint storage last = history[history.length - 1];
        if (last.fromSetId == setId) last.weight = weight;
        else history.push(MemberCheckpoint({blsKeyHash: last.blsKeyHash, fromSetId: setId, weight: weight}));
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
        MemberCheckpoint[] storage history = _history[index];
        for (uint256 i = history.length; i != 0; --i) {
            member = history[i - 1];
            if (member.fromSetId <= setId) return member;
        }
        return MemberCheckpoint({blsKeyHash: 0, fromSetId: 0, weight: 0});
    }

    /// @dev Takes a member's weight and image out of the set's sums.
    function _forget(MemberState storage state, uint64 setId) private {
        SetCheckpoint storage set = _sets[setId];
        set.totalWeight -= state.operator.weight;
        set.count -= 1;
        VersionUse storage use = _versionUse[state.operator.pcr0Hash];
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
