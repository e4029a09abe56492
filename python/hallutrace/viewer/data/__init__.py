"""What each view shows, as data: numbers made from a run, checked against numpy in the tests."""
