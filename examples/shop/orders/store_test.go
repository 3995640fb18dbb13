package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func open(t *testing.T, folder string) *store {
	t.Helper()
	s, err := openStore(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

func add(t *testing.T, s *store, sku string) order {
	t.Helper()
	placed, err := s.add(order{UserID: 1, SKU: sku, Quantity: 1})
	if err != nil {
		t.Fatal(err)
	}
	return placed
}

func TestTwoInstancesShareOrdersAndNeverAnID(t *testing.T) {
	folder := t.TempDir()
	instances := []*store{open(t, folder), open(t, folder)}
	const each = 200
	var mutex sync.Mutex
	seen := map[uint64]bool{}
	var group sync.WaitGroup
	for _, s := range instances {
		for range 4 {
			group.Go(func() {
				for range each / 4 {
					placed, err := s.add(order{UserID: 1, SKU: "tea", Quantity: 1})
					if err != nil {
						t.Error(err)
						return
					}
					mutex.Lock()
					if seen[placed.ID] {
						t.Errorf("id %d was given twice", placed.ID)
					}
					seen[placed.ID] = true
					mutex.Unlock()
				}
			})
		}
	}
	group.Wait()
	for id := range uint64(2 * each) {
		for i, s := range instances {
			if _, ok, err := s.get(id + 1); !ok || err != nil {
				t.Fatalf("instance %d does not know order %d: %v", i, id+1, err)
			}
		}
	}
}

func TestOrdersOutliveTheProcess(t *testing.T) {
	folder := t.TempDir()
	first := open(t, folder)
	add(t, first, "tea")
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, folder)
	if found, ok, err := second.get(1); !ok || err != nil || found.SKU != "tea" {
		t.Errorf("order %+v %v %v", found, ok, err)
	}
	if placed := add(t, second, "coffee"); placed.ID != 2 {
		t.Errorf("id %d after a restart", placed.ID)
	}
}

func TestHalfALineOfADeadWriterIsCutOff(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder)
	add(t, s, "tea")
	path := filepath.Join(folder, "orders.jsonl")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(whole, `{"id":2,"sku":"cof`...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.get(2); ok || err != nil {
		t.Errorf("half an order was read: %v", err)
	}
	if placed := add(t, s, "milk"); placed.ID != 2 {
		t.Errorf("id %d", placed.ID)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(text), "cof") || strings.Count(string(text), "\n") != 2 {
		t.Errorf("file %s %v", text, err)
	}
	if found, ok, err := open(t, folder).get(2); !ok || err != nil || found.SKU != "milk" {
		t.Errorf("order %+v %v %v", found, ok, err)
	}
}

func TestLineThatIsNoOrderIsPassedOver(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "orders.jsonl"), []byte("nonsense\n{\"id\":7,\"sku\":\"tea\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if placed := add(t, open(t, folder), "milk"); placed.ID != 8 {
		t.Errorf("id %d", placed.ID)
	}
}

func TestWatchSeesOrdersOfTheOtherInstanceFromNowOn(t *testing.T) {
	folder := t.TempDir()
	here, there := open(t, folder), open(t, folder)
	add(t, there, "before")
	from, err := here.position()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan order)
	ended := make(chan error)
	go func() {
		ended <- here.watch(ctx, from, nil, func(placed order) error { seen <- placed; return nil })
	}()
	add(t, there, "there")
	if placed := <-seen; placed.SKU != "there" {
		t.Errorf("saw %+v", placed)
	}
	add(t, here, "here")
	if placed := <-seen; placed.SKU != "here" {
		t.Errorf("saw %+v", placed)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestWatchEndsWithTheDrain(t *testing.T) {
	draining := make(chan struct{})
	close(draining)
	if err := open(t, t.TempDir()).watch(t.Context(), 0, draining, nil); !errors.Is(err, errDraining) {
		t.Errorf("ended with %v", err)
	}
}
