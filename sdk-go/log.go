package synego

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

// levelTrace is below slog's own levels.
const levelTrace = slog.LevelDebug - 4

// logHandler writes JSON lines: ts, level, msg, service, instance, then what the context knows of the request, then
// the caller's fields.
type logHandler struct {
	root    slog.Handler
	service string
	// instance may become known, or change, when the sidecar accepts the service.
	instance *atomic.Pointer[string]
	// steps are the WithAttrs and WithGroup calls so far: they are repeated for each line, after the context's fields,
	// which belong outside of every group.
	steps []func(slog.Handler) slog.Handler
}

func newLogHandler(to io.Writer, level slog.Leveler, service string, instance *atomic.Pointer[string]) *logHandler {
	root := slog.NewJSONHandler(to, &slog.HandlerOptions{Level: level, ReplaceAttr: spell})
	return &logHandler{root: root, service: service, instance: instance}
}

// spell gives the fields that slog itself writes the names and forms that all services of the mesh share.
func spell(groups []string, attr slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return attr
	}
	switch attr.Key {
	case slog.TimeKey:
		if attr.Value.Kind() == slog.KindTime {
			return slog.String("ts", attr.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z"))
		}
	case slog.LevelKey:
		if level, ok := attr.Value.Any().(slog.Level); ok {
			return slog.String("level", levelWord(level))
		}
	}
	if err, ok := attr.Value.Any().(error); ok {
		return slog.String(attr.Key, err.Error())
	}
	return attr
}

func levelWord(level slog.Level) string {
	if level <= levelTrace {
		return "trace"
	}
	return strings.ToLower(level.String())
}

func levelOfProto(level synegov1.LogLevel) slog.Level {
	switch level {
	case synegov1.LogLevel_LOG_LEVEL_TRACE:
		return levelTrace
	case synegov1.LogLevel_LOG_LEVEL_DEBUG:
		return slog.LevelDebug
	case synegov1.LogLevel_LOG_LEVEL_WARN:
		return slog.LevelWarn
	case synegov1.LogLevel_LOG_LEVEL_ERROR:
		return slog.LevelError
	}
	return slog.LevelInfo
}

// Enabled says whether lines of this level are written.
func (h *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.root.Enabled(ctx, level)
}

// WithAttrs returns a handler with further fields.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.step(func(at slog.Handler) slog.Handler { return at.WithAttrs(attrs) })
}

// WithGroup returns a handler whose further fields stand in a group.
func (h *logHandler) WithGroup(name string) slog.Handler {
	return h.step(func(at slog.Handler) slog.Handler { return at.WithGroup(name) })
}

func (h *logHandler) step(step func(slog.Handler) slog.Handler) *logHandler {
	next := *h
	next.steps = append(h.steps[:len(h.steps):len(h.steps)], step)
	return &next
}

// Handle writes one line.
func (h *logHandler) Handle(ctx context.Context, record slog.Record) error {
	attrs := []slog.Attr{slog.String("service", h.service)}
	known, _ := FromContext(ctx)
	for _, field := range [][2]string{
		{"instance", *h.instance.Load()},
		{"request_id", known.RequestID},
		{"trace_id", known.Trace.TraceID},
		{"handler", known.Handler},
	} {
		if field[1] != "" {
			attrs = append(attrs, slog.String(field[0], field[1]))
		}
	}
	at := h.root.WithAttrs(attrs)
	for _, step := range h.steps {
		at = step(at)
	}
	return at.Handle(ctx, record)
}

// ownLogger says whether the program set a logger of its own: slog has no better way to tell.
func ownLogger() bool {
	return fmt.Sprintf("%T", slog.Default().Handler()) != "*slog.defaultHandler"
}

// seldom lets one line through in each period.
type seldom struct {
	period time.Duration
	last   time.Time
}

func (s *seldom) now() bool {
	if !s.last.IsZero() && time.Since(s.last) < s.period {
		return false
	}
	s.last = time.Now()
	return true
}
