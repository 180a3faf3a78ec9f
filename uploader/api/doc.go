// Package api is the contract between the uploader and the API: the [Backend], its
// values, and its errors by [Kind].
//
// The implementations lie beside it and import only this package. Package openai
// speaks HTTP, retry decorates any Backend, and apitest has a Backend in memory with
// faults and the suite that every Backend must pass. The server in local shares no
// code with them, so it cannot share a mistake.
//
// Hooks travel in the context of a call. [WithRetryNote] reports attempts that will
// be repeated, and [WithProgress] the bytes of a part that have arrived. [WithOutcomeCheck] finds the File of a Complete whose answer was lost;
// [WithEarlierComplete] says that an earlier process has lost one.
package api
