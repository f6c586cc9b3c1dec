"""Results as DICOM objects that go back to the archive the series came from.

`objects.make_objects` makes them; one module a kind of object. They keep the patient's identity,
because a result without it cannot be filed.
"""
