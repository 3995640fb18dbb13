package synego

import (
	"math"
	"runtime/metrics"
	"slices"
	"time"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

// fullLag is the scheduler lag at which the process counts as fully used.
const fullLag = 100 * time.Millisecond

// report is the load of the service now.
func (s *Service) report(sequence uint64) *synegov1.Load {
	lag := s.lag.sample()
	load := &synegov1.Load{
		Sequence: sequence, LoopLagMs: uint32(min(lag.Milliseconds(), math.MaxUint32)),
		OpenStreams: uint32(max(s.openStreams.Load(), 0)), Named: map[string]float64{},
		Utilization: min(float64(lag)/float64(fullLag), 1),
	}
	for name, figure := range s.loads {
		value := figure()
		if math.IsNaN(value) {
			continue
		}
		load.Named[name] = min(max(value, 0), 1)
		load.Utilization = max(load.Utilization, load.Named[name])
	}
	for i, h := range s.handlers {
		if running := h.running.Load(); running > 0 {
			load.Handler = append(load.Handler, &synegov1.HandlerLoad{Index: uint32(i), Running: uint32(running)})
		}
	}
	return load
}

// schedulerLag measures how long goroutines that could run waited for a processor.
type schedulerLag struct{ before []uint64 }

// sample returns the 99th percentile since the last call.
func (l *schedulerLag) sample() time.Duration {
	samples := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(samples)
	if samples[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0
	}
	histogram := samples[0].Value.Float64Histogram()
	counts := slices.Clone(histogram.Counts)
	total := uint64(0)
	for i := range counts {
		if len(l.before) == len(histogram.Counts) {
			counts[i] -= l.before[i]
		}
		total += counts[i]
	}
	l.before = slices.Clone(histogram.Counts)
	seen := uint64(0)
	for i, count := range counts {
		if seen += count; count > 0 && seen*100 >= total*99 {
			lower := max(histogram.Buckets[i], 0) // the bucket's upper end may be infinite
			return time.Duration(lower * float64(time.Second))
		}
	}
	return 0
}
