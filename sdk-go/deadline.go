package synego

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxTimeout is the longest time that a header may give.
const maxTimeout = 24 * time.Hour

// remaining is the time left for a request; without one there is no deadline.
type remaining struct {
	time  time.Duration
	known bool
}

func (r *remaining) shorten(time time.Duration) {
	if !r.known || time < r.time {
		r.time, r.known = time, true
	}
}

// remainingOf returns the smallest of the deadlines that headers give. Malformed ones are ignored.
func remainingOf(get func(string) string) remaining {
	var left remaining
	for _, name := range []string{headerTimeout, headerConnectTimeout} {
		if text := get(name); isDigits(text, 8) {
			ms, _ := strconv.ParseInt(text, 10, 64) // at most eight digits
			if ms >= 1 && ms <= maxTimeout.Milliseconds() {
				left.shorten(time.Duration(ms) * time.Millisecond)
			}
		}
	}
	if timeout, ok := parseGRPCTimeout(get(headerGRPCTimeout)); ok {
		left.shorten(timeout)
	}
	return left
}

// parseGRPCTimeout reads up to eight digits and a unit, rounded down to milliseconds and to a day at most.
func parseGRPCTimeout(text string) (time.Duration, bool) {
	if len(text) < 2 || !isDigits(text[:len(text)-1], 8) {
		return 0, false
	}
	unit, known := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}[text[len(text)-1]]
	count, _ := strconv.ParseInt(text[:len(text)-1], 10, 64) // at most eight digits
	return min(time.Duration(min(count, int64(maxTimeout/max(unit, 1))))*unit, maxTimeout).Truncate(time.Millisecond), known
}

func isDigits(text string, most int) bool {
	return text != "" && len(text) <= most && strings.Trim(text, "0123456789") == ""
}

// left returns the time for a call made in ctx: what ctx leaves, cut to the limit where it has no deadline of its own
// or a later one. A limit of 0 is none. False means that there is no deadline at all.
func left(ctx context.Context, limit time.Duration) (time.Duration, bool) {
	var left remaining
	if deadline, ok := ctx.Deadline(); ok {
		left.shorten(max(time.Until(deadline), 0))
	}
	if limit > 0 {
		left.shorten(limit)
	}
	return left.time, left.known
}

// tellTimeout says in headers how much time is left, at least a millisecond; in Connect's header too for a call by name.
func tellTimeout(header http.Header, left time.Duration, byName bool) {
	// Rounded down: a deadline never grows on its way.
	ms := strconv.FormatInt(min(left, maxTimeout).Milliseconds(), 10)
	header.Set(headerTimeout, ms)
	if byName {
		header.Set(headerConnectTimeout, ms)
	}
}
