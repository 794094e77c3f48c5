package txn

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
)

// The error codes that this package answers by itself. They are those of the newest versions: package kafka turns
// PRODUCER_FENCED into INVALID_PRODUCER_EPOCH for older ones.
var (
	codeUnknownServer      = kerr.UnknownServerError.Code
	codeUnknownTopicOrPart = kerr.UnknownTopicOrPartition.Code
	codeLoading            = kerr.CoordinatorLoadInProgress.Code
	codeNotAvailable       = kerr.CoordinatorNotAvailable.Code
	codeNotCoordinator     = kerr.NotCoordinator.Code
	codeInvalidRequest     = kerr.InvalidRequest.Code
	codeInvalidState       = kerr.InvalidTxnState.Code
	codeInvalidMapping     = kerr.InvalidProducerIDMapping.Code
	codeInvalidTimeout     = kerr.InvalidTransactionTimeout.Code
	codeConcurrent         = kerr.ConcurrentTransactions.Code
	codeNotAttempted       = kerr.OperationNotAttempted.Code
	codeFenced             = kerr.ProducerFenced.Code
	codeNotFound           = kerr.TransactionalIDNotFound.Code
	codeAbortable          = kerr.TransactionAbortable.Code
	codeInvalidRegex       = kerr.InvalidRegularExpression.Code
)

// codeOf maps an error of the runtime or the log to the code a client gets. The log's errors are changed to those that
// make a client look for the coordinator again, as in Kafka (TransactionStateManager.appendTransactionToLog): 3, 7, 19 and
// 20 to 15, 6 and 56 to 16, 10 and 18 to -1.
func codeOf(err error) int16 {
	var k *kerr.Error
	if !errors.As(err, &k) {
		return codeNotAvailable // the caller's context ended: nobody reads this
	}
	switch k {
	case kerr.UnknownTopicOrPartition, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut:
		return codeNotAvailable
	case kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch:
		return codeNotCoordinator
	case kerr.MessageTooLarge, kerr.RecordListTooLarge:
		return codeUnknownServer
	}
	return k.Code
}
