"""What tests of layers share."""


GROUPS = ['1', 'Inv', 'M', 'F', 'C3', 'C4', 'C6', 'D2', 'D3', 'D4', 'T', 'O',
          'I', 'C4xM', 'D3xInv', 'TxInv', 'OxInv', 'IxInv', 'SO(2)',
          'SO(2)xM', 'SO(2)xF', 'SO(2)xInv', 'SO(2)xMxInv', 'O(2)', 'SO(3)',
          'O(3)']
