"""Random elements of a group, which move a cloud and its fields."""
from __future__ import annotations

from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from ... import checks
from ...symmetry.fields import FieldType
from ...symmetry.groups import Group
from .reading import VECTORS


@functional_transform('random_group_element')
class RandomGroupElement(BaseTransform):
    r"""Moves a point cloud by a random element of a group (functional name:
    :obj:`random_group_element`),

    .. math::
        \mathbf{p}_i \mapsto g \, \mathbf{p}_i, \qquad
        \mathbf{x}_i \mapsto \rho(g) \, \mathbf{x}_i, \qquad
        g \sim \mathrm{Haar}(G)

    with one element for each :obj:`Data` object: positions and all fields of
    known type move together, as a rotated scan of the same object would.
    Rotations about z are :obj:`RandomGroupElement('SO(2)')`. Apply it before
    batching; a batch is moved as one.

    Positions :obj:`pos`, (outward) normals :obj:`normal`, forces
    :obj:`force`, the rows of a periodic :obj:`cell` and :obj:`edge_shift` are
    vectors and move wherever they are there; :obj:`fields` says otherwise,
    e.g. :obj:`normal='1e'` where normals follow the orientation of faces and
    not the surface. Attributes whose type is not known stay as they are.

    Args:
        group (Group or str): The group G.
        fields (dict, optional): The types of further attributes of nodes,
            edges or the whole cloud by name, e.g.
            :obj:`{'x': FieldType(...), 'edge_attr': '1o', 'y': '2e'}`, or
            :obj:`None` for one of the vectors above that is to stay. A type
            of irreps may be of any group, as an augmentation by more than
            the symmetries of a network; one given by matrices only of a
            group that contains G. (default: :obj:`None`)

    Raises:
        ValueError: If positions or a named attribute are missing or have
            another width than their type, or a type is not defined on the
            group.
        TypeError: If a field does not hold floating point numbers.
    """
    def __init__(self, group: Group | str, fields: dict | None = None):
        self.group = group = Group.wrap(group)
        if fields is not None and not isinstance(fields, dict):
            raise TypeError(f"Expected 'fields' to be a dict of types by name "
                            f"(got {checks.show(fields)})")
        needed = {'pos': '1o', **(fields or {})}
        self.fields = {
            name: _seen_under(kind, group)
            for name, kind in {**dict.fromkeys(VECTORS, '1o'),
                               **needed}.items() if kind is not None
        }
        self.needed = [name for name in needed if name in self.fields]

    def forward(self, data: Data) -> Data:
        stores = checks.data('data', data).stores
        for name in self.needed:
            if not any(name in store for store in stores):
                raise ValueError(f"Expected data with '{name}' (got {data}). "
                                 f"What is not there is left out by "
                                 f"fields={{'{name}': None}}")
        g = self.group.sample()[0]
        for store in stores:
            for name, kind in self.fields.items():
                if name in store:
                    checks.tensor(f'data.{name}', store[name])
                    kind.check(store[name], f'data.{name}')
                    store[name] = kind.transform(store[name], g)
        return data

    def __repr__(self) -> str:
        fields = {name: self.fields[name] for name in self.needed
                  if name != 'pos'}
        return (f'{self.__class__.__name__}({self.group}'
                + (f', fields={fields})' if fields else ')'))


def _seen_under(field_type, group: Group) -> FieldType:
    """A type of a larger group is restricted; irreps are of all of O(3)."""
    field_type = FieldType.wrap(field_type, group)
    if group.is_subgroup_of(field_type.group):
        return field_type.restrict(group)
    return FieldType(field_type, group)
