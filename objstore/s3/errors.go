package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"

	"github.com/varvelog/varve/objstore"
)

// errNoBucket is an answer about the bucket, not about an object: it must never look like ErrNotFound.
var errNoBucket = errors.New("bucket does not exist")

// mapError wraps an error of the library with the class of objstore that it belongs to. ctx is the request's, whose cause
// says whether the watchdog or the caller ended it.
func mapError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	if class := classOf(err); class != nil {
		return fmt.Errorf("%w: %w", class, err)
	}
	return err
}

// classOf returns the sentinel for an error of the library, or nil for a transient or unknown one.
func classOf(err error) error {
	var r minio.ErrorResponse
	if !errors.As(err, &r) {
		return nil
	}
	switch r.Code {
	case minio.NoSuchBucket:
		return errNoBucket
	case minio.NoSuchKey:
		return objstore.ErrNotFound
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "TooManyRequests", "Throttling", "ThrottlingException",
		"RequestLimitExceeded", "RequestThrottled", "BandwidthLimitExceeded":
		return objstore.ErrThrottled
	case "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled", "AccountProblem", "InvalidToken":
		return objstore.ErrDenied
	case "PreconditionFailed":
		return objstore.ErrExists
	case "InvalidRange":
		return objstore.ErrRange
	case "BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "InvalidDigest":
		return objstore.ErrChecksum
	case "KeyTooLongError", "EntityTooLarge", "MissingContentLength", "InvalidArgument", "InvalidBucketName", "XMinioInvalidObjectName",
		"ObjectParentIsFile", "XMinioParentIsObject", "InvalidRequest":
		return objstore.ErrInvalid
	}
	return classOfStatus(r.StatusCode)
}

func classOfStatus(status int) error {
	switch status {
	case http.StatusNotFound:
		return objstore.ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return objstore.ErrDenied
	case http.StatusPreconditionFailed:
		return objstore.ErrExists
	case http.StatusRequestedRangeNotSatisfiable:
		return objstore.ErrRange
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return objstore.ErrThrottled
	}
	return nil
}
