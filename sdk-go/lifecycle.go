package synego

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

const (
	// stopWithin is the time from TERM to the end.
	stopWithin = 25 * time.Second
	// keepAlive is how long an idle connection is kept; the sidecar is told and closes earlier.
	keepAlive = 75 * time.Second
	// quiet is how long nothing may be in flight before the instance counts as drained: a request that the sidecar
	// sent before it heard of the drain is still answered.
	quiet = 100 * time.Millisecond
	// afterDrained is how long a drained instance waits for TERM before it ends by itself.
	afterDrained = time.Second
	// attachWithin is the patience of RequireSidecar.
	attachWithin = 10 * time.Second
)

// Run listens, attaches to the sidecar, runs the hooks of OnStart, and serves until TERM, a drain by the sidecar, or
// the end of ctx; it returns nil once drained. Options add to those of [NewService]. It may be called once.
func (s *Service) Run(ctx context.Context, options ...Option) error {
	if s.ran.Swap(true) {
		return fmt.Errorf("service %s: Run was called before", s.name)
	}
	if err := s.settle(options); err != nil {
		return err
	}
	if !s.config.embedded {
		var stopSignals func()
		ctx, stopSignals = untilSignal(ctx)
		defer stopSignals()
		if !ownLogger() {
			slog.SetDefault(s.log)
		}
	}
	serving, err := s.listen()
	if err != nil {
		return err
	}
	defer serving.close()
	serving.start()
	link := s.attach(serving.listeners)
	defer link.close()
	if err := s.begin(ctx); err != nil && ctx.Err() == nil { // a start that TERM cut short is no failure
		return err
	}
	checksDone := s.watchChecks()
	defer checksDone()

	drain, asked, err := s.untilDrain(ctx, serving)
	if err != nil {
		return err
	}
	s.end(ctx, drain, asked, serving)
	return nil
}

// untilSignal ends ctx at the first TERM or INT; the second has its usual effect, at once.
func untilSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		select {
		case <-signals:
		case <-ctx.Done():
		}
		signal.Stop(signals)
		cancel()
	}()
	return ctx, cancel
}

// linkTask is the attachment as a task; a service that runs alone has one that does nothing.
type linkTask struct{ close func() }

func (s *Service) attach(listeners []*synegov1.Listener) linkTask {
	address := s.world.sidecar()
	if address == "" {
		return linkTask{close: func() {}}
	}
	a := &attachment{
		address: address, world: s.world, log: s.log,
		hello:   func(id string) *synegov1.Hello { return s.hello(listeners, id) },
		state:   func() *synegov1.State { return s.state.message(s.checks) },
		changed: s.state.changed,
		load:    s.report,
		welcome: func(welcome *synegov1.Welcome) {
			s.world.change(func(link *Link) {
				link.State, link.Refusal = LinkAttached, nil
				link.Mesh, link.Zone = welcome.GetMesh(), welcome.GetZone()
				if welcome.GetInstance() != "" {
					link.Instance = welcome.GetInstance()
				}
				if welcome.GetOutbound() != "" {
					link.Outbound = welcome.GetOutbound()
				}
			})
			instance := s.world.link.Load().Instance
			s.instance.Store(&instance)
			s.log.Info("attached to the sidecar", "mesh", welcome.GetMesh())
		},
		settings: func(settings *synegov1.Settings) { s.level.Set(levelOfProto(settings.GetLogLevel())) },
		drain: func(drain *synegov1.Drain) {
			within := min(time.Duration(drain.GetDeadlineMs())*time.Millisecond, 10*time.Minute)
			s.drainOnce.Do(func() { s.drains <- Drain{Cause: causeOf(drain.GetCause()), Deadline: time.Now().Add(within)} })
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); a.run(ctx) }()
	return linkTask{close: func() { cancel(); <-done }}
}

func causeOf(cause synegov1.DrainCause) DrainCause {
	switch cause {
	case synegov1.DrainCause_DRAIN_CAUSE_RELOAD:
		return CauseReload
	case synegov1.DrainCause_DRAIN_CAUSE_SCALE_DOWN:
		return CauseScaleDown
	case synegov1.DrainCause_DRAIN_CAUSE_OPERATOR:
		return CauseOperator
	}
	return CauseStop
}

// begin makes the service ready: the sidecar if it is required, the hooks, the first run of each check.
func (s *Service) begin(ctx context.Context) error {
	if s.config.requireSidecar {
		if err := s.untilAttached(ctx); err != nil {
			return err
		}
	}
	for _, hook := range s.onStart {
		if err := hook(ctx); err != nil {
			return fmt.Errorf("service %s: start: %w", s.name, err)
		}
	}
	var group sync.WaitGroup
	for _, c := range s.checks {
		group.Go(func() { c.took(c.once(ctx)) })
	}
	group.Wait()
	s.state.set(synegov1.Phase_PHASE_READY)
	s.stateChanged()
	return nil
}

func (s *Service) untilAttached(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attachWithin)
	defer cancel()
	for s.world.link.Load().State != LinkAttached {
		if refusal := s.world.link.Load().Refusal; refusal != nil {
			return fmt.Errorf("service %s: the sidecar refused: %w", s.name, refusal)
		}
		if s.world.alone() || wait(ctx, 10*time.Millisecond) != nil {
			return fmt.Errorf("service %s: %w", s.name,
				reasonError(ReasonSidecarUnreachable, "no sidecar accepted this service within %s", attachWithin))
		}
	}
	return nil
}

// watchChecks runs the checks until the function it returns is called.
func (s *Service) watchChecks() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for _, c := range s.checks {
		group.Go(func() { c.watch(ctx, s.stateChanged) })
	}
	return func() { cancel(); group.Wait() }
}

// untilDrain waits for the reason to end; asked says that it was the sidecar's word.
func (s *Service) untilDrain(ctx context.Context, serving *serving) (drain Drain, asked bool, err error) {
	select {
	case drain = <-s.drains:
		return drain, true, nil
	case <-ctx.Done():
		return Drain{Cause: CauseStop, Deadline: time.Now().Add(stopWithin)}, false, nil
	case err := <-serving.failed:
		return Drain{}, false, err
	}
}

// end drains: new work stops, what runs is finished, hooks are told, all within one deadline. Requests that still come
// are answered: to refuse them is the sidecar's part.
func (s *Service) end(ctx context.Context, drain Drain, asked bool, serving *serving) {
	s.log.Info("draining", "cause", string(drain.Cause), "in_flight", s.inFlight.Load())
	within, cancel := context.WithDeadline(context.WithoutCancel(ctx), drain.Deadline)
	defer cancel()
	close(s.draining)
	if asked { // the sidecar sends nothing new already: hooks first
		s.runDrainHooks(within, drain)
	}
	s.state.set(synegov1.Phase_PHASE_DRAINING)
	s.stateChanged()
	if !asked {
		s.runDrainHooks(within, drain)
	}
	s.untilQuiet(within)
	serving.finish(within)
	if left := s.inFlight.Load(); left > 0 {
		s.log.Warn("the time to drain was over", "in_flight", left)
	}
	s.state.set(synegov1.Phase_PHASE_DRAINED)
	if asked {
		bye, cancel := context.WithTimeout(ctx, afterDrained)
		<-bye.Done() // TERM, which ends ctx, or its absence
		cancel()
	}
	for _, hook := range slices.Backward(s.onStop) {
		if err := hook(); err != nil {
			s.log.Warn("stop hook failed", "error", err)
		}
	}
	s.client.Close()
	s.log.Info("drained")
}

func (s *Service) runDrainHooks(ctx context.Context, drain Drain) {
	for _, hook := range s.onDrain {
		if err := hook(ctx, drain); err != nil {
			s.log.Warn("drain hook failed", "error", err)
		}
	}
}

// untilQuiet returns when nothing was in flight for a moment, or at the end of ctx.
func (s *Service) untilQuiet(ctx context.Context) {
	const look = 10 * time.Millisecond
	for still := time.Duration(0); still < quiet; still += look {
		if s.inFlight.Load() > 0 {
			still = 0
		}
		if wait(ctx, look) != nil {
			return
		}
	}
}
