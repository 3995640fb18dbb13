package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	shopv1 "github.com/lostabaddon/synegobase/examples/shop/orders/internal/gen/shop/v1"
	synego "github.com/lostabaddon/synegobase/sdk-go"
)

// order is an order as it is stored and answered.
type order struct {
	ID         uint64 `json:"id"`
	UserID     uint64 `json:"user_id"`
	UserName   string `json:"user_name"`
	SKU        string `json:"sku"`
	Quantity   uint32 `json:"quantity"`
	TotalCents uint64 `json:"total_cents"`
	// Instance took the order, ReservedBy its stock.
	Instance   string `json:"instance"`
	ReservedBy string `json:"reserved_by"`
}

// wish is what somebody wants to order.
type wish struct {
	UserID   uint64 `json:"user_id"`
	SKU      string `json:"sku"`
	Quantity uint32 `json:"quantity"`
}

// Validate names every mistake.
func (w wish) Validate() error {
	var mistakes []error
	if w.UserID < 1 {
		mistakes = append(mistakes, errors.New("user_id: must be at least 1"))
	}
	if w.SKU == "" || len(w.SKU) > 64 {
		mistakes = append(mistakes, fmt.Errorf("sku: expected 1 to 64 bytes, got %d", len(w.SKU)))
	}
	if w.Quantity < 1 || w.Quantity > 1000 {
		mistakes = append(mistakes, fmt.Errorf("quantity: expected 1 to 1000, got %d", w.Quantity))
	}
	return errors.Join(mistakes...)
}

// shop is what both transports share.
type shop struct {
	service   *synego.Service
	users     *http.Client
	inventory shopv1.InventoryClient
	store     *store
}

// place takes an order: the user must exist and the stock suffice.
func (s *shop) place(ctx context.Context, wish wish) (order, error) {
	name, err := s.userName(ctx, wish.UserID)
	if err != nil {
		return order{}, err
	}
	stock, err := s.reserve(ctx, wish)
	if err != nil {
		return order{}, err
	}
	placed, err := s.store.add(order{
		UserID: wish.UserID, UserName: name, SKU: wish.SKU, Quantity: wish.Quantity,
		TotalCents: stock.GetPriceCents() * uint64(wish.Quantity), Instance: s.service.Instance(), ReservedBy: stock.GetInstance(),
	})
	if err != nil {
		s.giveBack(ctx, wish)
		return order{}, err
	}
	return placed, nil
}

// get returns one order, whichever instance took it.
func (s *shop) get(id uint64) (order, error) {
	found, ok, err := s.store.get(id)
	if err != nil {
		return order{}, err
	}
	if !ok {
		return order{}, synego.Errorf(synego.NotFound, "no order %d", id)
	}
	return found, nil
}

// userName asks the service `users`. Its own 404 is our caller's mistake; a 404 of the mesh is not.
func (s *shop) userName(ctx context.Context, id uint64) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://users/api/users/%d", id), nil)
	if err != nil {
		return "", err
	}
	response, err := s.users.Do(request)
	if err != nil {
		return "", err
	}
	var failed *synego.Error
	if errors.As(synego.ErrorOf(response), &failed) {
		if response.StatusCode == http.StatusNotFound && !failed.FromMesh {
			return "", synego.Errorf(synego.FailedPrecondition, "no user %d", id).
				WithReason("unknown_user").WithStatus(http.StatusUnprocessableEntity)
		}
		return "", failed
	}
	defer response.Body.Close()
	var user struct{ Name string }
	if err := json.NewDecoder(response.Body).Decode(&user); err != nil {
		return "", fmt.Errorf("answer of users: %w", err)
	}
	return user.Name, nil
}

// reserve asks the service `inventory` for the stock.
func (s *shop) reserve(ctx context.Context, wish wish) (*shopv1.Stock, error) {
	stock, err := s.inventory.Reserve(ctx, &shopv1.ReserveStock{Sku: wish.SKU, Quantity: wish.Quantity})
	var failed *synego.Error
	if !errors.As(err, &failed) || failed.FromMesh {
		return stock, err
	}
	switch failed.Code {
	case synego.NotFound:
		return nil, synego.Errorf(synego.FailedPrecondition, "no goods %s", wish.SKU).
			WithReason("unknown_sku").WithStatus(http.StatusUnprocessableEntity)
	case synego.FailedPrecondition:
		return nil, synego.Errorf(synego.FailedPrecondition, "not %d of %s left", wish.Quantity, wish.SKU).
			WithReason("out_of_stock").WithStatus(http.StatusConflict)
	}
	return nil, err
}

// giveBack returns reserved stock of an order that could not be kept, also when its caller is gone.
func (s *shop) giveBack(ctx context.Context, wish wish) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	stream, err := s.inventory.Restock(ctx)
	if err == nil {
		_ = stream.Send(&shopv1.Delivery{Sku: wish.SKU, Quantity: wish.Quantity}) // its failure comes with the answer
		_, err = stream.CloseAndRecv()
	}
	if err != nil {
		slog.ErrorContext(ctx, "stock not given back", "sku", wish.SKU, "quantity", wish.Quantity, "error", err)
	}
}

// told logs the one line of a request.
func told(ctx context.Context, what string, err error, fields ...any) {
	var failed *synego.Error
	switch {
	case err == nil:
		slog.InfoContext(ctx, what, append(fields, "outcome", "ok")...)
	case errors.As(err, &failed):
		slog.InfoContext(ctx, what, append(fields, "outcome", failed.Code.String(), "reason", failed.Reason)...)
	default:
		slog.WarnContext(ctx, what, append(fields, "outcome", "failed", "error", err)...)
	}
}
