package group

import (
	"errors"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kerr"
)

// The error codes that this package answers by itself.
var (
	codeUnknownServer      = kerr.UnknownServerError.Code
	codeUnknownTopicOrPart = kerr.UnknownTopicOrPartition.Code
	codeMetadataTooLarge   = kerr.OffsetMetadataTooLarge.Code
	codeLoading            = kerr.CoordinatorLoadInProgress.Code
	codeNotAvailable       = kerr.CoordinatorNotAvailable.Code
	codeNotCoordinator     = kerr.NotCoordinator.Code
	codeIllegalGeneration  = kerr.IllegalGeneration.Code
	codeInconsistent       = kerr.InconsistentGroupProtocol.Code
	codeInvalidGroup       = kerr.InvalidGroupID.Code
	codeUnknownMember      = kerr.UnknownMemberID.Code
	codeInvalidSession     = kerr.InvalidSessionTimeout.Code
	codeRebalance          = kerr.RebalanceInProgress.Code
	codeNonEmptyGroup      = kerr.NonEmptyGroup.Code
	codeGroupNotFound      = kerr.GroupIDNotFound.Code
	codeMemberIDRequired   = kerr.MemberIDRequired.Code
	codeGroupMaxSize       = kerr.GroupMaxSizeReached.Code
	codeFencedInstance     = kerr.FencedInstanceID.Code
	codeSubscribed         = kerr.GroupSubscribedToTopic.Code
	codeUnstableOffset     = kerr.UnstableOffsetCommit.Code
	codeUnknownTopicID     = kerr.UnknownTopicID.Code
)

// codeOf maps an error of the runtime or the log to the code a client gets. The log's errors are changed to those that
// make a client look for the coordinator again, as in Kafka (CoordinatorOperationExceptionHelper): 3, 7, 19 and 20 to 15,
// 6 and 56 to 16, 10, 18 and 4 to -1.
func codeOf(err error) int16 {
	if err == nil {
		return 0
	}
	var k *kerr.Error
	if !errors.As(err, &k) {
		return codeNotAvailable // the caller's context ended: nobody reads this
	}
	switch k {
	case kerr.UnknownTopicOrPartition, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut:
		return codeNotAvailable
	case kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch:
		return codeNotCoordinator
	case kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidFetchSize:
		return codeUnknownServer
	}
	return k.Code
}

// javaHash is Java's String.hashCode: over UTF-16 code units.
func javaHash(s string) int32 {
	var h int32
	for _, r := range s {
		if r >= 0x10000 {
			hi, lo := utf16.EncodeRune(r)
			h = 31*(31*h+hi) + lo
			continue
		}
		h = 31*h + r
	}
	return h
}

// javaBucket is the slot of a string in a Java HashMap of 16 slots.
func javaBucket(s string) uint32 {
	h := uint32(javaHash(s))
	return (h ^ h>>16) & 15
}

// utf16Len is Java's String.length.
func utf16Len(s string) int {
	n := utf8.RuneCountInString(s)
	for _, r := range s {
		if r >= 0x10000 {
			n++
		}
	}
	return n
}

// PartitionFor is the partition of __consumer_offsets that holds a group: Java's String.hashCode & 0x7fffffff, modulo.
func PartitionFor(group string, partitions int32) int32 {
	return (javaHash(group) & 0x7fffffff) % partitions
}
