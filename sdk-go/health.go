package synego

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

const (
	checkEvery  = 5 * time.Second
	checkWithin = time.Second
	checkDown   = 3
	checkUp     = 2
	maxCause    = 256 // bytes
)

// check is one health check and what became of it so far.
type check struct {
	name     string
	required bool
	run      func(context.Context) error

	mutex   sync.Mutex
	ok      bool
	cause   string
	inARow  int
	started bool
}

// took takes up the result of one run and says whether what the check tells changed.
func (c *check) took(err error) (changed bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	before, cause := c.ok, c.cause
	passed := err == nil
	switch {
	case !c.started:
		c.started, c.ok = true, passed
	case passed == c.ok:
		c.inARow = 0
	default:
		c.inARow++
		if need := map[bool]int{true: checkUp, false: checkDown}[passed]; c.inARow >= need {
			c.ok, c.inARow = passed, 0
		}
	}
	if c.ok {
		c.cause = ""
	} else if err != nil {
		c.cause = clip(err.Error(), maxCause)
	}
	return before != c.ok || cause != c.cause
}

func (c *check) message() *synegov1.Check {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return &synegov1.Check{Name: c.name, Ok: c.ok, Required: c.required, Cause: c.cause}
}

// once runs the check in its time; one that does not look at its context is given up all the same.
func (c *check) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	result := make(chan error, 1)
	go func() {
		defer func() {
			if panicked := recover(); panicked != nil {
				result <- fmt.Errorf("the check panicked: %v", panicked)
			}
		}()
		result <- c.run(ctx)
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("no answer in %s", checkWithin)
	}
}

// watch runs the check for as long as the service does.
func (c *check) watch(ctx context.Context, changed func()) {
	for wait(ctx, checkEvery) == nil {
		if err := c.once(ctx); ctx.Err() == nil && c.took(err) {
			changed()
		}
	}
}

// stateBox is where the service is in its life.
type stateBox struct {
	mutex   sync.Mutex
	phase   synegov1.Phase
	changed chan struct{} // holds one value while there is something new to tell
}

// set moves on to a phase; there is no way back.
func (s *stateBox) set(phase synegov1.Phase) {
	s.mutex.Lock()
	s.phase = max(s.phase, phase)
	s.mutex.Unlock()
	s.touch()
}

func (s *stateBox) touch() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *stateBox) message(checks []*check) *synegov1.State {
	s.mutex.Lock()
	phase := s.phase
	s.mutex.Unlock()
	state := &synegov1.State{}
	for _, c := range checks {
		state.Check = append(state.Check, c.message())
	}
	state.Phase = phaseOf(phase, state.Check)
	return state
}

// phaseOf is the phase that is told: checks count only while the service is ready.
func phaseOf(own synegov1.Phase, checks []*synegov1.Check) synegov1.Phase {
	if own == synegov1.Phase_PHASE_UNSPECIFIED {
		return synegov1.Phase_PHASE_STARTING
	}
	if own != synegov1.Phase_PHASE_READY {
		return own
	}
	phase := synegov1.Phase_PHASE_READY
	for _, c := range checks {
		switch {
		case c.GetOk():
		case c.GetRequired():
			return synegov1.Phase_PHASE_UNHEALTHY
		default:
			phase = synegov1.Phase_PHASE_DEGRADED
		}
	}
	return phase
}

func phaseWord(phase synegov1.Phase) string {
	return strings.ToLower(strings.TrimPrefix(phase.String(), "PHASE_"))
}

// stateChanged tells gRPC's own health what the sidecar is told.
func (s *Service) stateChanged() {
	if s.health != nil {
		status := healthv1.HealthCheckResponse_NOT_SERVING
		if isReady(s.state.message(s.checks).GetPhase()) {
			status = healthv1.HealthCheckResponse_SERVING
		}
		s.health.SetServingStatus("", status)
	}
	s.state.touch()
}

func isReady(phase synegov1.Phase) bool {
	return phase == synegov1.Phase_PHASE_READY || phase == synegov1.Phase_PHASE_DEGRADED
}

// serveHealth answers /livez, /readyz and /healthz, which is the same as /readyz.
func (s *Service) serveHealth(w http.ResponseWriter, r *http.Request) bool {
	if !slices.Contains([]string{"/livez", "/readyz", "/healthz"}, r.URL.Path) || (r.Method != http.MethodGet && r.Method != http.MethodHead) {
		return false
	}
	state := s.state.message(s.checks)
	status := http.StatusOK
	if r.URL.Path != "/livez" && !isReady(state.GetPhase()) {
		status = http.StatusServiceUnavailable
	}
	checks := map[string]string{}
	for _, c := range state.GetCheck() {
		checks[c.GetName()] = c.GetCause()
		if c.GetOk() {
			checks[c.GetName()] = "ok"
		}
	}
	text, err := json.Marshal(map[string]any{"state": phaseWord(state.GetPhase()), "checks": checks})
	if err != nil {
		s.fail(w, r, err, false)
		return true
	}
	w.Header().Set("Content-Type", contentJSON)
	s.write(w, r, status, append(text, '\n'))
	return true
}

// clip cuts a text to so many bytes without breaking a character, and to what protobuf takes.
func clip(text string, most int) string {
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}
