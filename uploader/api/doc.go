// Package api is the contract between the uploader and what sends its parts: the
// [Backend], the values that go through it, and its errors by [Kind].
//
// The implementations lie beside it and know only this package: openai speaks
// HTTP, retry decorates any Backend, apitest keeps one in memory with faults and
// has the suite that each must pass. The server in local shares no code with
// them, so it cannot share a mistake.
//
// Two hooks travel in the context of a call. [WithRetryNote] hears of attempts
// that will be repeated. [WithOutcomeCheck] answers whether a Complete whose
// answer was lost has been carried out.
package api
