package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	synego "github.com/lostabaddon/synegobase/sdk-go"
)

// followEvery is how often the file is looked at for orders of other instances.
const followEvery = 100 * time.Millisecond

// lockWithin is the longest wait for another instance that writes.
const lockWithin = 2 * time.Second

var errDraining = errors.New("draining")

// store keeps orders in one file, a line of JSON each, which several processes share.
//
// A line is only ever written at the end, by who holds the file's lock; so ids are unique, and what was read once
// stays true. A process that dies while it writes leaves half a line: readers take no line without its end, and the
// next writer cuts it off.
type store struct {
	file *os.File
	stop context.CancelFunc
	done chan struct{}

	mutex   sync.Mutex
	read    int64 // bytes of whole lines that are in orders
	orders  []order
	byID    map[uint64]int
	last    uint64
	changed chan struct{} // closed, and replaced, when orders grew
}

// openStore opens the file in a folder, which is made where it is missing, and reads it.
func openStore(folder string) (*store, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("folder of orders: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(folder, "orders.jsonl"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("orders: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &store{file: file, stop: stop, done: make(chan struct{}), byID: map[uint64]int{}, changed: make(chan struct{})}
	if err := s.catchUp(); err != nil {
		stop()
		return nil, errors.Join(err, file.Close())
	}
	go s.follow(ctx)
	return s, nil
}

func (s *store) close() error {
	s.stop()
	<-s.done
	return s.file.Close()
}

// follow takes up what other processes write.
func (s *store) follow(ctx context.Context) {
	defer close(s.done)
	look := time.NewTicker(followEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if err := s.catchUp(); err != nil {
				slog.Warn("orders cannot be followed", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// add gives an order its id and writes it.
func (s *store) add(placed order) (order, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if err := s.lock(); err != nil {
		return order{}, err
	}
	defer func() { _ = syscall.Flock(int(s.file.Fd()), syscall.LOCK_UN) }() // closing the file unlocks too
	if err := s.take(); err != nil {
		return order{}, err
	}
	// With the lock held, what stands after the last whole line is what a dead writer left.
	if err := s.file.Truncate(s.read); err != nil {
		return order{}, fmt.Errorf("cut half a line off orders: %w", err)
	}
	placed.ID = s.last + 1
	line, err := json.Marshal(placed)
	if err != nil {
		return order{}, err
	}
	if _, err := s.file.Write(append(line, '\n')); err != nil {
		return order{}, fmt.Errorf("write order: %w", err)
	}
	return placed, s.take()
}

// lock takes the file's lock. It waits for a writer in another process, but not for ever: that one may be stopped.
func (s *store) lock() error {
	for end := time.Now().Add(lockWithin); ; time.Sleep(time.Millisecond) {
		err := syscall.Flock(int(s.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return fmt.Errorf("lock orders: %w", err)
		case time.Now().After(end):
			return synego.Errorf(synego.Unavailable, "another instance writes orders for too long").WithReason("orders_locked")
		}
	}
}

// get returns an order; the file is read on for one that is not known yet.
func (s *store) get(id uint64) (order, bool, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, known := s.byID[id]; !known {
		if err := s.take(); err != nil {
			return order{}, false, err
		}
	}
	at, known := s.byID[id]
	if !known {
		return order{}, false, nil
	}
	return s.orders[at], true, nil
}

// catchUp takes up all whole lines that were written since the last time.
func (s *store) catchUp() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.take()
}

// take is catchUp with the mutex held.
func (s *store) take() error {
	info, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("orders: %w", err)
	}
	if info.Size() <= s.read {
		return nil
	}
	before := len(s.orders)
	lines := bufio.NewReader(io.NewSectionReader(s.file, s.read, info.Size()-s.read))
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break // half a line is not there yet
		}
		if err != nil {
			return fmt.Errorf("read orders: %w", err)
		}
		s.read += int64(len(line))
		var placed order
		if err := json.Unmarshal(bytes.TrimSpace(line), &placed); err != nil || placed.ID == 0 {
			slog.Warn("a line of orders is no order and is passed over", "ends_at", s.read)
			continue
		}
		s.byID[placed.ID] = len(s.orders)
		s.orders = append(s.orders, placed)
		s.last = max(s.last, placed.ID)
	}
	if len(s.orders) > before {
		close(s.changed)
		s.changed = make(chan struct{})
	}
	return nil
}

// position is the number of orders so far: where a watch begins.
func (s *store) position() (int, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	err := s.take()
	return len(s.orders), err
}

// watch gives each order from a position on to a function, until that fails, ctx ends or draining is closed.
func (s *store) watch(ctx context.Context, next int, draining <-chan struct{}, give func(order) error) error {
	for {
		s.mutex.Lock()
		fresh, changed := s.orders[next:len(s.orders):len(s.orders)], s.changed
		s.mutex.Unlock()
		for _, placed := range fresh {
			if err := give(placed); err != nil {
				return err
			}
		}
		next += len(fresh)
		select {
		case <-changed:
		case <-draining:
			return errDraining
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// userName tells users of one machine apart, who cannot share a folder.
func userName() string {
	if self, err := user.Current(); err == nil {
		return self.Uid
	}
	return "nobody"
}
