"""Everything public, called with arguments that work and with wrong ones."""
import os
import warnings

import pytest

os.environ.setdefault('MPLBACKEND', 'Agg')
import fuzz

#: Subjects that need something that is not here.
MISSING = {
    'group_from_escnn': ImportError, 'from_escnn': ImportError,
    'Shrec17Meshes': FileNotFoundError,
    'AminoAcidEnvironments.split': ValueError,  # of one protein
}


@pytest.fixture(scope='module')
def subjects():
    return fuzz.subjects()


def test_everything_public_is_tried(subjects):
    tried = {s.name for s in subjects}
    public = {name for _, name, _ in fuzz.public_names()}
    assert public == {n for n in tried if '.' not in n} | (
        public & set(fuzz.SKIPPED))
    assert len(tried) > 200
    assert {'Group.sample', 'Linear.forward', 'QM9Net.forward'} <= tried


def test_good_arguments_work(subjects):
    """Else wrong ones would be tried in vain."""
    for subject in subjects:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                subject.call(subject.good())
            except tuple(MISSING.values()) as error:
                assert isinstance(error, MISSING.get(subject.name, ())), (
                    subject.name, error)


@pytest.mark.parametrize('seed', [1, 2])
def test_wrong_arguments_end_well(seed):
    result = fuzz.run_apart(1200, seed, None, gigabytes=6.)
    assert result['faults'] == []


def test_faults_are_seen():
    """A verdict that could not fail would be none."""
    def call(function):
        subject = fuzz.Subject.__new__(fuzz.Subject)
        subject.call = lambda kwargs: function()
        return fuzz.verdict(subject, {'x': fuzz.Nonsense()})

    def raises(error):
        def function():
            raise error
        return function

    for function, word in [(raises(RuntimeError('deep')), 'RuntimeError'),
                           (raises(ValueError('short')), 'raw ValueError'),
                           (lambda: None, 'accepted')]:
        assert word in call(function)
