package iam_test

import (
	"testing"

	"giggle/iam"
	"giggle/store"
)

func TestKnownAccounts(t *testing.T) {
	w := newWorld(t)
	if err := w.store.Update(t.Context(),
		func(tx *store.Tx) error {
			return w.CreateDefaults(tx, "giggle", number,
				"user:you@giggle.test")
		}); err != nil {
		t.Fatal(err)
	}
	a, err := w.CreateAccount(t.Context(), "tortune", iam.Account{Project: "giggle"})
	if err != nil {
		t.Fatal(err)
	}
	check := func(email string, want bool) {
		t.Helper()
		err := w.store.View(t.Context(), func(tx *store.Tx) error {
			known, err := iam.KnownAccount(tx, email)
			if known != want {
				t.Errorf("%s: %v, want %v", email, known, want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	agents := []string{
		"service-" + number + "@serverless-robot-prod.iam.gserviceaccount.com",
		"service-" + number + "@gcp-sa-cloudbuild.iam.gserviceaccount.com",
		"service-" + number + "@gcp-sa-artifactregistry.iam.gserviceaccount.com",
		number + "@cloudservices.gserviceaccount.com",
	}
	for _, email := range append(agents, a.Email, iam.ComputeAccount(number), iam.BuildAccount(number)) {
		check(email, true)
	}
	for _, email := range []string{
		"", "x", "nobody@giggle.iam.gserviceaccount.com",
		"service-210987654321@serverless-robot-prod.iam.gserviceaccount.com",
		"service-@serverless-robot-prod.iam.gserviceaccount.com", "@cloudservices.gserviceaccount.com",
		"service-" + number + "x@gcp-sa-cloudbuild.iam.gserviceaccount.com",
		"service-" + number + "@gcp-sa-else.iam.gserviceaccount.com",
		number + "@serverless-robot-prod.iam.gserviceaccount.com",
	} {
		check(email, false)
	}
	// Agents are not among a project's accounts, and outlive those.
	all, err := w.Accounts(t.Context(), "giggle")
	if err != nil || len(all) != 3 {
		t.Errorf("%d accounts, %v, want three", len(all), err)
	}
	for _, x := range all {
		if err := w.DeleteAccount(t.Context(), "giggle", x.Email); err != nil {
			t.Fatal(err)
		}
		check(x.Email, false)
	}
	check(agents[0], true)
}
