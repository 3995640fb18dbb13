package synego

import (
	"strconv"

	"google.golang.org/grpc/codes"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

// Code says what kind of failure an [Error] is: one of the sixteen words of gRPC, on every transport. The numbers are
// gRPC's too.
type Code uint32

// The codes. OK is never the code of an error.
const (
	OK                 Code = 0
	Cancelled          Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Aborted            Code = 10
	OutOfRange         Code = 11
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
	DataLoss           Code = 15
	Unauthenticated    Code = 16
)

// Blame says whose fault a failure is.
type Blame uint8

// The blames. The zero value is not said.
const (
	// BlameCaller: the same request fails again.
	BlameCaller Blame = iota + 1
	// BlameUpstream: the service that was called, or its machine.
	BlameUpstream
	// BlameLocal: the program that reports it.
	BlameLocal
)

// String returns the blame's word, such as "caller".
func (b Blame) String() string {
	return [...]string{"", "caller", "upstream", "local"}[min(b, BlameLocal)]
}

// Retry says whether a repeat helps.
type Retry uint8

// The answers to whether a repeat helps.
const (
	// RetryNever: a repeat fails too, or might do the work twice.
	RetryNever Retry = iota
	// RetryLater: the same may work after a while.
	RetryLater
	// RetryOtherEndpoint: nothing was processed; another instance may be asked at once.
	RetryOtherEndpoint
)

// String returns the word, such as "other_endpoint".
func (r Retry) String() string {
	return [...]string{"never", "later", "other_endpoint"}[min(r, RetryOtherEndpoint)]
}

// meaning is what a code stands for: its word, its HTTP status and what it says where nothing more is known.
type meaning struct {
	word   string
	status int
	blame  Blame
	retry  Retry
}

var meanings = [...]meaning{
	OK:                 {"ok", 200, 0, RetryNever},
	Cancelled:          {"cancelled", 499, BlameCaller, RetryNever},
	Unknown:            {"unknown", 500, BlameLocal, RetryNever},
	InvalidArgument:    {"invalid_argument", 400, BlameCaller, RetryNever},
	DeadlineExceeded:   {"deadline_exceeded", 504, BlameLocal, RetryNever},
	NotFound:           {"not_found", 404, BlameCaller, RetryNever},
	AlreadyExists:      {"already_exists", 409, BlameCaller, RetryNever},
	PermissionDenied:   {"permission_denied", 403, BlameCaller, RetryNever},
	ResourceExhausted:  {"resource_exhausted", 429, BlameCaller, RetryLater},
	FailedPrecondition: {"failed_precondition", 400, BlameCaller, RetryNever},
	Aborted:            {"aborted", 409, BlameCaller, RetryNever},
	OutOfRange:         {"out_of_range", 400, BlameCaller, RetryNever},
	Unimplemented:      {"unimplemented", 501, BlameCaller, RetryNever},
	Internal:           {"internal", 500, BlameLocal, RetryNever},
	Unavailable:        {"unavailable", 503, BlameLocal, RetryLater},
	DataLoss:           {"data_loss", 500, BlameLocal, RetryNever},
	Unauthenticated:    {"unauthenticated", 401, BlameCaller, RetryNever},
}

func (c Code) meaning() meaning {
	if int(c) >= len(meanings) {
		return meanings[Unknown]
	}
	return meanings[c]
}

// String returns the code's word, such as "not_found".
func (c Code) String() string {
	if int(c) >= len(meanings) {
		return "code " + strconv.Itoa(int(c))
	}
	return meanings[c].word
}

// Status returns the HTTP status that the code means, such as 404.
func (c Code) Status() int { return c.meaning().status }

// codeOfWord returns the code with this word, as answers to calls by name spell it.
func codeOfWord(word string) (Code, bool) {
	if word == "canceled" { // Connect's own spelling
		return Cancelled, true
	}
	for code, meaning := range meanings {
		if meaning.word == word && Code(code) != OK {
			return Code(code), true
		}
	}
	return Unknown, false
}

// codeOfStatus returns the code of an HTTP answer that names none.
func codeOfStatus(status int) Code {
	switch status {
	case 400:
		return InvalidArgument
	case 401:
		return Unauthenticated
	case 403:
		return PermissionDenied
	case 404:
		return NotFound
	case 405, 501:
		return Unimplemented
	case 408, 504:
		return DeadlineExceeded
	case 409:
		return Aborted
	case 413, 429, 431:
		return ResourceExhausted
	case 416:
		return OutOfRange
	case 499:
		return Cancelled
	case 502, 503:
		return Unavailable
	}
	switch {
	case status >= 400 && status < 500:
		return FailedPrecondition
	case status >= 500 && status < 600:
		return Internal
	}
	return Unknown
}

func codeOfGRPC(code codes.Code) Code {
	if int(code) >= len(meanings) {
		return Unknown
	}
	return Code(code)
}

// The reasons that this package itself gives; see `synego explain REASON`.
const (
	// ReasonInvalidBody: the input does not have the form that the handler declares.
	ReasonInvalidBody = "invalid_body"
	// ReasonDraining: the instance is draining and takes no new work.
	ReasonDraining = "draining"
	// ReasonNoHandler: no handler of the service takes this path or method.
	ReasonNoHandler = "no_handler"
	// ReasonNoSidecar: the program runs alone, so a service cannot be called by its name.
	ReasonNoSidecar = "no_sidecar"
	// ReasonSidecarUnreachable: the sidecar's outbound did not answer.
	ReasonSidecarUnreachable = "sidecar_unreachable"
)

// manner is what a reason of the mesh says by itself: its code, whose fault it is, whether a repeat helps, and whether
// the service may say it in x-synego-reason, which a sidecar takes from its own service for these words alone.
type manner struct {
	code   Code
	blame  Blame
	retry  Retry
	header bool
}

var manners = map[string]manner{
	ReasonInvalidBody:        {InvalidArgument, BlameCaller, RetryNever, true},
	"queue_full":             {Unavailable, BlameUpstream, RetryLater, true},
	"queue_timeout":          {Unavailable, BlameUpstream, RetryLater, true},
	"handler_stuck":          {Unavailable, BlameUpstream, RetryOtherEndpoint, true},
	ReasonDraining:           {Unavailable, BlameUpstream, RetryOtherEndpoint, true},
	"handler_timeout":        {DeadlineExceeded, BlameUpstream, RetryNever, true},
	"handler_crashed":        {Internal, BlameUpstream, RetryNever, true},
	ReasonNoHandler:          {Unimplemented, BlameCaller, RetryNever, false},
	ReasonNoSidecar:          {Unavailable, BlameLocal, RetryNever, false},
	ReasonSidecarUnreachable: {Unavailable, BlameLocal, RetryLater, false},
}

func (b Blame) proto() synegov1.Blame { return synegov1.Blame(b) }

// proto is one ahead: on the wire 0 is "not said".
func (r Retry) proto() synegov1.Retry { return synegov1.Retry(r) + 1 }

func retryOfProto(retry synegov1.Retry) Retry {
	switch retry {
	case synegov1.Retry_RETRY_LATER:
		return RetryLater
	case synegov1.Retry_RETRY_OTHER_ENDPOINT:
		return RetryOtherEndpoint
	}
	return RetryNever
}
